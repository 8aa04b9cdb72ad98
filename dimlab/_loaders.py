"""Features of any module, of whatever a loader yields: no image set, no checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dimlab.datasets.objects import labels_of, parts_of
from dimlab.devices import check_device
from dimlab.images import Recipe
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.training.augment import normalised

_POOLS = {  # of tokens (B, T, D), then of maps (B, C, H, W)
    "cls": "the first token",
    "mean": "the mean of all tokens, or of a map (B, C, H, W) over its pixels",
    "patches": "the mean of all tokens but the first",
    "mean-last": "the mean of a map (B, H, W, C) over its pixels",
}
_SAID = ("layout", "prefix", "branch", "pool", "assumed")  # of an encoder, kept in the meta
_CHANNELS = (1, 3, 4)  # of images
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
    module : nn.Module, LoadedEncoder, Checkpoint or callable
        Maps a batch (B, ...) to features. A module is put into evaluation mode, and back.
    loader : iterable
        Yields batches: inputs alone, tuples of inputs, labels and anything else, or mappings with
        ``image`` (``images, img, pixel_values, inputs, x``) and perhaps ``label`` (``labels,
        fine_label, target, targets, y``). Labels are class ids or names. Several views of the same
        samples come as a list of tensors or of mappings in the place of the inputs, as mappings by
        name, or as first parts of the tuple. uint8 is divided by 255 and normalised as the encoder
        records; other inputs go in as they are, in the module's floating type.
    pool : {"cls", "mean", "patches", "mean-last"}, optional
        How tokens (B, T, D) or maps become (B, D): the first token, the mean of all tokens or of a
        map (B, C, H, W) over its pixels, the mean of all tokens but the first, or the mean of a map
        (B, H, W, C).
    select : str, int or callable, optional
        Which part of the output holds the features: a key or attribute, a place in a tuple, a part
        of a part (``encoder.pooled``, ``0.1``), or a function of the output.
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
        If the loader yields nothing, a batch has no inputs, only some have labels, labels are
        neither class ids nor names, or the output is no matrix (B, D) and nothing says how to make
        it one, or the device is not there.

    Warns
    -----
    UserWarning
        If the encoder records a normalisation, and images that are not uint8 are taken to have
        gone through it.

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
    if not isinstance(loader, Iterable):
        raise Refusal(f"loader must yield batches; got {type(loader).__name__}.")
    try:
        n_batches = len(loader) if isinstance(loader, Sized) else 0
    except TypeError:  # a DataLoader of a stream has a length, and does not know it
        n_batches = 0
    blocks: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    rounded: set[str] = set()
    is_float = False
    normalisation, meta = recorded_of(module)
    normalisation = normalisation or getattr(module, "recipe", Recipe()).normalisation or "none"
    with evaluating(module, device) as evaluated, torch.inference_mode():
        for batch in loader:
            views, ids = _views_of(batch)
            found = [
                features_of(
                    _output_of(evaluated, as_input(each, evaluated, device, normalisation)),
                    len(each), pool, select,
                )
                for each in views
            ]  # fmt: skip
            is_float |= any(each.is_floating_point() for each in views)
            rounded |= {_ROUNDED[each.dtype] for each in found if each.dtype in _ROUNDED}
            blocks.append([each.float().cpu().numpy() for each in found])
            if ids is not None:
                labels.append(ids)
            if progress is not None:
                progress(len(blocks), n_batches)
    _check(blocks, len(labels))
    if normalisation != "none" and is_float:
        warnings.warn(
            f"assumed: the loader's images are normalised as the encoder takes them "
            f"({normalisation}), where they are not uint8.", UserWarning, stacklevel=2,
        )  # fmt: skip
    features = [np.concatenate(each) for each in zip(*blocks, strict=True)]
    return Representation(
        features[0],
        labels=np.concatenate(labels) if labels else None,
        views=np.stack(features) if len(features) > 1 else None,
        meta=meta | ({"precision": max(rounded)} if rounded else {}),
    )


def _check(blocks: Sequence[Sequence[np.ndarray]], n_labelled: int) -> None:
    """Refuse batches that do not fit together."""
    if not blocks:
        raise Refusal("loader must yield at least one batch; got none.")
    if n_labelled not in (0, len(blocks)):
        raise Refusal(
            f"loader must yield labels in each batch or in none; got them in {n_labelled} of "
            f"{len(blocks)}."
        )
    n_views = sorted({len(each) for each in blocks})
    if len(n_views) > 1:
        raise Refusal(
            f"loader must yield as many views in each batch; got {n_views[0]} and {n_views[-1]}."
        )
    widths = sorted({each.shape[1] for block in blocks for each in block})
    if len(widths) > 1:
        raise Refusal(
            f"module must give features of one width; got {widths[0]} and {widths[-1]} dimensions. "
            "Yield images of one size, or pool what the module gives."
        )


def is_loader(given: Any) -> bool:
    """Whether something is a loader of torch's, which yields batches."""
    return isinstance(given, torch.utils.data.DataLoader)


def as_input(inputs: Tensor, module: Any, device: str, normalisation: str = "none") -> Tensor:
    """Return a batch on a device as a module takes it: uint8 normalised, in its floating type."""
    batch = inputs.to(device)
    if batch.dtype == torch.uint8:
        if batch.ndim == 4 and batch.shape[3] in _CHANNELS and batch.shape[1] not in _CHANNELS[:2]:
            batch = batch.permute(0, 3, 1, 2)
        batch = normalised(batch.float() / 255, normalisation)
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    if parameter is not None and batch.is_floating_point() and parameter.is_floating_point():
        batch = batch.to(parameter.dtype)
    return batch


def _output_of(module: Any, batch: Tensor) -> Any:
    """Call a module; its own error says what it was given."""
    try:
        return module(batch)
    except Exception as error:
        error.add_note(f"encode_loader called it with {batch.dtype} of shape {(*batch.shape,)}.")
        raise


# What a loader yields -----------------------------------------------------------------------------


def _views_of(batch: Any) -> tuple[list[Tensor], np.ndarray | None]:
    """Take the views of the inputs, one or more, and the labels out of a loader's batch."""
    if isinstance(batch, Mapping) and batch:
        values = list(batch.values())
        if all(isinstance(each, Mapping) for each in values):  # views by name
            batch = {"views": values}
    elif isinstance(batch, (tuple, list)) and batch and not isinstance(batch[0], (tuple, list)):
        shape = getattr(batch[0], "shape", ())
        alike = [len(shape) > 2 and getattr(each, "shape", None) == shape for each in batch]
        n_views = alike.index(False) if False in alike else len(alike)
        if n_views > 1:  # views stand side by side
            batch = [list(batch[:n_views]), *batch[n_views:]]
        elif len(shape) == 1 and len(batch) > 1 and _may_be_images(batch[1]):
            raise Refusal(
                f"loader must yield the inputs first; got {len(batch[0])} numbers before them. "
                "Leave them out: encode_loader(module, (batch[1:] for batch in loader))."
            )
    inputs, ids = parts_of(batch)
    views = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    if views and all(isinstance(each, Mapping) for each in views):
        parts = [parts_of(each) for each in views]
        views, ids = [image for image, _ in parts], parts[0][1] if ids is None else ids
    views = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in views]
    if not views or not all(isinstance(each, Tensor) for each in views):
        kind = type(views[0]).__name__ if views else "nothing"
        raise Refusal(
            f"loader must yield batches of tensors, tuples or mappings of them; got {kind} in "
            f"{type(batch).__name__}. Make tensors of images, as with "
            "torchvision.transforms.ToTensor, or pass the data set itself to encode."
        )
    shapes = {tuple(each.shape) for each in views}
    if len(views) > 1 and any(len(each) == 3 and each[0] in _CHANNELS for each in shapes):
        raise Refusal(
            f"loader must yield batches (B, C, H, W); got a list of {len(views)} images of shape "
            f"{tuple(views[0].shape)}. Stack them: torch.stack(images)."
        )
    return views, None if ids is None else labels_of(ids, len(views[0]))


def _may_be_images(part: Any) -> bool:
    first = part[0] if isinstance(part, (tuple, list)) and part else part
    return len(getattr(first, "shape", ())) > 2


# What a module gives ------------------------------------------------------------------------------


def features_of(output: Any, n_rows: int, pool: str | None = None, select: Any = None) -> Tensor:
    """Return the features (B, D) of B samples in what a module gives."""
    found = _one_tensor(_selected(output, select), output, n_rows)
    shape = tuple(found.shape)
    if found.is_complex():
        raise Refusal(f"module must give real features; got {found.dtype}.")
    if found.ndim > 1 and shape[0] != n_rows:
        other = " Pass select=lambda output: output.transpose(0, 1) to encode_loader."
        raise Refusal(
            f"module must give one row a sample, features (B, D); got {shape} for {n_rows} samples."
            f"{other if select is None and shape[1] == n_rows else ''}"
        )
    if found.ndim == 4 and shape[2:] == (1, 1):
        return found.flatten(1)
    pooled = found if pool is None or found.ndim == 2 else _pooled(found, pool)
    if pooled is None or pooled.ndim != 2:
        got = shape if pool is None else f"{shape} for pool={pool!r}"
        raise Refusal(
            f"module must give features of shape (B, D); got {got}.{_to_pool(found, n_rows)}"
        )
    return pooled


def _one_tensor(found: Any, output: Any, n_rows: int) -> Tensor:
    """Return the only tensor in what was selected, or say which there are."""
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if isinstance(found, Tensor):
        return found
    parts = _tensors_in(found)
    if len(parts) == 1:
        return next(iter(parts.values()))
    listed = ", ".join(f"{name} {tuple(e.shape)}" for name, e in list(parts.items())[:6])
    rows = [name for name, e in _tensors_in(output).items() if e.ndim > 1 and len(e) == n_rows]
    remedy = ""
    if rows:
        remedy = f" Pass select={rows[0]!r} to encode_loader, or another."
    elif len(parts) == n_rows and {e.ndim for e in parts.values()} == {1}:
        remedy = " Pass select=torch.stack to encode_loader."
    raise Refusal(
        f"module must give features of shape (B, D); got {type(found).__name__} with "
        f"{listed or 'no tensors'}.{remedy}"
    )


def _to_pool(found: Tensor, n_rows: int) -> str:
    """Say how an output becomes a matrix."""
    shape = tuple(found.shape)
    known = {3: ("cls", "mean", "patches"), 4: ("mean", "mean-last")}.get(found.ndim, ())
    if known:
        ways = ", ".join(f"{each!r} ({_POOLS[each]})" for each in known)
        usual = known[found.ndim == 4 and _is_channels_last(found)]
        return f" Pass pool={usual!r} to encode_loader: {ways}."
    change = "flatten(2).mean(2)"
    if found.ndim < 2:
        change = "reshape(-1, 1)" if shape == (n_rows,) else f"reshape(-1, {found.numel()})"
    return f" Pass select=lambda output: output.{change} to encode_loader."


def _is_channels_last(found: Tensor) -> bool:
    return found.shape[1] == found.shape[2] != found.shape[3]


def _pooled(found: Tensor, pool: str) -> Tensor | None:
    """Pool tokens or maps; None where that has no meaning."""
    if found.ndim == 3:
        patches = found[:, 1:].mean(1) if found.shape[1] > 1 else None
        return {"cls": found[:, 0], "mean": found.mean(1), "patches": patches}.get(pool)
    if found.ndim != 4:
        return None
    if pool == "mean" and not _is_channels_last(found):
        return found.mean((2, 3))
    return found.mean((1, 2)) if pool == "mean-last" else None


def _selected(output: Any, select: Any) -> Any:
    if select is None:
        return output
    if callable(select):
        return select(output)
    if isinstance(output, (Tensor, np.ndarray)):
        raise Refusal(
            "select must be left out, or be a function, as the module gives a tensor; got "
            f"{select!r}."
        )
    parts = _tensors_in(output)
    if select in parts:
        return parts[select]
    try:
        if isinstance(select, str) and not isinstance(output, Mapping):
            return getattr(output, select)
        return output[select]
    except (LookupError, AttributeError, TypeError) as error:
        there = ", ".join(map(repr, parts))
        raise Refusal(
            f"select must name a part of the module's output, one of {there}; got {select!r}."
        ) from error


def _tensors_in(output: Any, before: str = "") -> dict[Any, Tensor]:
    """Return tensors by name or place; of parts within parts as ``encoder.pooled`` or ``0.1``."""
    parts: Any = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, Sequence) and not isinstance(output, (str, bytes)):
        parts = dict(enumerate(output))
    else:
        parts = getattr(output, "__dict__", {})
    found: dict[Any, Tensor] = {}
    for name, each in parts.items():
        if isinstance(each, (Tensor, np.ndarray)):
            found[f"{before}{name}" if before else name] = torch.as_tensor(each)
        elif isinstance(each, (Mapping, tuple, list)):
            found |= _tensors_in(each, f"{before}{name}.")
    return found


def recorded_of(checkpoint: Any, layer: str = "encoder") -> tuple[str | None, dict[str, Any]]:
    """Return the normalisation that is recorded, and where features come from."""
    if hasattr(checkpoint, "mask_logits"):
        config = checkpoint.config
        meta = {
            "source": config.encoder,
            "layer": layer,
            "step": checkpoint.step,
            "seed": config.seed,
            "method": config.method,
        }
        if checkpoint.has_mask and layer == "encoder":
            meta["mask"] = [float(weight) for weight in checkpoint.mask.weights]
        return config.normalisation, meta
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
    module = given.encoder() if hasattr(given, "mask_logits") else module
    if not callable(module):
        raise Refusal(f"module must be something to call; got {type(module).__name__}.")
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
