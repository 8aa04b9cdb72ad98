"""Features of any module, of whatever a loader yields: no image set, no checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dimlab.datasets.objects import parts_of
from dimlab.devices import check_device
from dimlab.refusals import Refusal
from dimlab.representation import Representation

_POOLS = {  # of tokens (B, T, D), then of maps (B, C, H, W)
    "cls": "the first token",
    "mean": "the mean of all tokens, or of a map (B, C, H, W) over its pixels",
    "patches": "the mean of all tokens but the first",
    "mean-last": "the mean of a map (B, H, W, C) over its pixels",
}
_SAID = ("layout", "prefix", "branch", "pool", "assumed")  # of an encoder, kept in the meta
_ROUNDED = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def encode_loader(
    module: Any,
    loader: Iterable[Any],
    *,
    pool: str | None = None,
    select: str | int | Callable[[Any], Any] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Representation:
    """Encode what any data loader yields with anything that can be called.

    This is the way for an architecture of your own: build the module, load its weights, and encode.

    Parameters
    ----------
    module : nn.Module, LoadedEncoder or callable
        Maps a batch (B, ...) to features. A module is put into evaluation mode, and back.
    loader : iterable
        Yields batches: inputs alone, tuples of inputs, labels and anything else, or mappings with
        ``image`` (``images, img, pixel_values, inputs, x``) and perhaps ``label`` (``labels,
        fine_label, target, targets, y``). Several views of the same samples come as a list of
        tensors in the place of the inputs, or as first parts of the tuple. uint8 is divided by
        255; other inputs go in as they are, in the module's floating type.
    pool : {"cls", "mean", "patches", "mean-last"}, optional
        How tokens (B, T, D) or maps become (B, D): the first token, the mean of all tokens or of a
        map (B, C, H, W) over its pixels, the mean of all tokens but the first, or the mean of a map
        (B, H, W, C).
    select : str, int or callable, optional
        Which part of the output holds the features: a key or attribute, a place in a tuple, or a
        function of the output.
    device : str, default="cpu"
        Where to encode.
    progress : callable, optional
        Called with (batches done, batches in all; 0 where the loader does not know).

    Returns
    -------
    Representation
        Rows in the order of the loader: do not shuffle it. Of several views, the features are those
        of the first.

    Raises
    ------
    ValueError
        If the loader yields nothing, a batch has no inputs, only some have labels, labels are no
        class ids, or the output is no matrix (B, D) and nothing says how to make it one, or the
        device is not there.

    Examples
    --------
    >>> batches = [(torch.eye(2), torch.tensor([0, 1])), (torch.ones(1, 2), torch.tensor([1]))]
    >>> split = encode_loader(nn.Linear(2, 3), batches)
    >>> split.features.shape, split.labels.tolist()
    ((3, 3), [0, 1, 1])
    >>> tokens = {"last_hidden_state": torch.arange(6.0).view(1, 3, 2)}
    >>> encode_loader(lambda batch: tokens, [torch.zeros(1, 3)], pool="cls").features.tolist()
    [[0.0, 1.0]]
    """
    if pool not in (None, *_POOLS):
        raise Refusal(f"pool must be one of {', '.join(_POOLS)}; got {pool!r}.")
    n_batches = len(loader) if isinstance(loader, Sized) else 0
    blocks: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    rounded: set[str] = set()
    with evaluating(module, device) as evaluated, torch.inference_mode():
        for batch in loader:
            views, ids = _views_of(batch)
            found = [
                features_of(evaluated(as_input(e, evaluated, device)), pool, select) for e in views
            ]
            rounded |= {_ROUNDED[each.dtype] for each in found if each.dtype in _ROUNDED}
            blocks.append([each.float().cpu().numpy() for each in found])
            if ids is not None:
                labels.append(_class_ids(ids, len(views[0])))
            if progress is not None:
                progress(len(blocks), n_batches)
    if not blocks:
        raise Refusal("loader must yield at least one batch; got none.")
    for what, counts in (("labels", len(labels)), ("views", sum(len(e) > 1 for e in blocks))):
        if counts not in (0, len(blocks)):
            raise Refusal(
                f"loader must yield {what} in each batch or in none; got them in {counts} of "
                f"{len(blocks)}."
            )
    features = [np.concatenate(each) for each in zip(*blocks, strict=True)]
    return Representation(
        features[0],
        labels=np.concatenate(labels) if labels else None,
        views=np.stack(features) if len(features) > 1 else None,
        meta=recorded_of(module)[1] | ({"precision": max(rounded)} if rounded else {}),
    )


def is_loader(given: Any) -> bool:
    """Whether something is a loader of torch's, which yields batches."""
    return isinstance(given, torch.utils.data.DataLoader)


def as_input(inputs: Tensor, module: Any, device: str) -> Tensor:
    """Return a batch on a device as a module takes it: uint8 in [0, 1], in its floating type."""
    batch = inputs.to(device)
    if batch.dtype == torch.uint8:
        if batch.ndim == 4 and batch.shape[3] in (1, 3) and batch.shape[1] not in (1, 3):
            batch = batch.permute(0, 3, 1, 2)
        batch = batch.float() / 255
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    if parameter is not None and batch.is_floating_point() and parameter.is_floating_point():
        batch = batch.to(parameter.dtype)
    return batch


def _views_of(batch: Any) -> tuple[list[Tensor], Any]:
    """Take the views of the inputs, one or more, and the labels out of a loader's batch."""
    if isinstance(batch, (tuple, list)) and batch and not isinstance(batch[0], (tuple, list)):
        shape = getattr(batch[0], "shape", ())
        alike = [len(shape) > 2 and getattr(each, "shape", None) == shape for each in batch]
        n_views = alike.index(False) if False in alike else len(alike)
        if n_views > 1:  # views stand side by side
            batch = [list(batch[:n_views]), *batch[n_views:]]
    inputs, ids = parts_of(batch)
    views = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    views = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in views]
    if not views or not all(isinstance(each, Tensor) for each in views):
        raise Refusal(
            "loader must yield batches of tensors, tuples or mappings of them; got "
            f"{type(inputs).__name__} in {type(batch).__name__}."
        )
    return views, ids


def _class_ids(found: Any, n_samples: int) -> np.ndarray:
    try:
        ids = torch.as_tensor(found).cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:  # names of classes, or of files
        raise Refusal(
            f"loader must yield class ids (B,) as labels; got {type(found).__name__}: {error}."
        ) from error
    if ids.shape != (n_samples,) or (ids != ids.astype(np.int64)).any():
        raise Refusal(
            f"loader must yield class ids (B,) as labels; got {ids.dtype} of shape {ids.shape}."
        )
    return ids.astype(np.int64)


def features_of(output: Any, pool: str | None = None, select: Any = None) -> Tensor:
    """Return the features (B, D) in what a module gives."""
    found = _selected(output, select)
    if not isinstance(found, Tensor):
        parts = _tensors_in(found)
        if len(parts) != 1:
            listed = ", ".join(f"{name} {tuple(each.shape)}" for name, each in parts.items())
            first = next(iter(parts), "")
            raise Refusal(
                f"module must give features of shape (B, D); got {type(found).__name__} with "
                f"{listed or 'no tensors'}. Pass select={first!r} to encode_loader, or another."
            )
        found = next(iter(parts.values()))
    shape = tuple(found.shape)
    if found.ndim == 4 and shape[2:] == (1, 1):
        return found.flatten(1)
    pooled = found if pool is None or found.ndim == 2 else _pooled(found, pool)
    if pooled is None or pooled.ndim != 2:
        usual = {3: "cls", 4: "mean-last" if shape[1] == shape[2] != shape[-1] else "mean"}
        known = {3: ("cls", "mean", "patches"), 4: ("mean", "mean-last")}.get(found.ndim, ())
        ways = ", ".join(f"{each!r} ({_POOLS[each]})" for each in known)
        remedy = f" Pass pool={usual[found.ndim]!r} to encode_loader: {ways}." if known else ""
        got = shape if pool is None else f"{shape} for pool={pool!r}"
        raise Refusal(f"module must give features of shape (B, D); got {got}.{remedy}")
    return pooled


def _pooled(found: Tensor, pool: str) -> Tensor | None:
    """Pool tokens or maps; None where that has no meaning."""
    if found.ndim == 3:
        ways = {"cls": found[:, 0], "mean": found.mean(1), "patches": found[:, 1:].mean(1)}
        return ways.get(pool)
    if found.ndim != 4:
        return None
    channels_last = found.shape[1] == found.shape[2] != found.shape[3]
    if pool == "mean" and not channels_last:
        return found.mean((2, 3))
    return found.mean((1, 2)) if pool == "mean-last" else None


def _selected(output: Any, select: Any) -> Any:
    if select is None:
        return output
    if callable(select):
        return select(output)
    try:
        if isinstance(select, str) and not isinstance(output, Mapping):
            return getattr(output, select)
        return output[select]
    except (LookupError, AttributeError, TypeError) as error:
        there = ", ".join(map(repr, _tensors_in(output)))
        raise Refusal(
            f"select must name a part of the module's output, one of {there}; got {select!r}."
        ) from error


def _tensors_in(output: Any) -> dict[Any, Tensor]:
    """Return the tensors of a mapping, a tuple or an object with attributes, by name or place."""
    parts: Any = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, Sequence):
        parts = dict(enumerate(output))
    else:
        parts = getattr(output, "__dict__", {})
    return {name: each for name, each in parts.items() if isinstance(each, Tensor)}


def recorded_of(checkpoint: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the normalisation that is recorded, and where features come from."""
    if hasattr(checkpoint, "config") and hasattr(checkpoint, "mask_logits"):
        return checkpoint.config.normalisation, {}
    if not hasattr(checkpoint, "inspection"):
        name = getattr(checkpoint, "__name__", type(checkpoint).__name__)
        return None, {"source": name, "layer": "encoder"}
    facts = checkpoint.inspection.facts
    meta = {"source": checkpoint.inspection.name, "layer": "encoder", "encoder": facts["encoder"]}
    meta |= {name: facts[name] for name in _SAID if name in facts}
    if checkpoint.mask is not None:
        meta["mask"] = [float(weight) for weight in checkpoint.mask.weights]
    return facts.get("normalisation"), meta


@contextmanager
def evaluating(given: Any, device: str) -> Iterator[Any]:
    """Put a module into evaluation mode on a device, and every part of it back afterwards."""
    check_device(device)
    module = given.module if hasattr(given, "inspection") else given
    if not isinstance(module, nn.Module):
        yield module
        return
    modes = [(each, each.training) for each in module.modules()]
    home = next((each.device for each in module.parameters()), None)
    try:
        yield module.to(device).eval()
    finally:
        for each, mode in modes:
            each.training = mode
        if home is not None:
            module.to(home)
