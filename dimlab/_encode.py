"""The bridge from training to probes: a checkpoint and images become a Representation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from dimlab.devices import check_device, hold
from dimlab.moments import N_BLOCKS, Moments
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.training.augment import Augmentation, derived_seed, normalised
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import all_gather, current_world

if TYPE_CHECKING:
    from dimlab.images import ImageSet
    from dimlab.io.weights import LoadedEncoder
    from dimlab.training.checkpoint import Checkpoint

LAYERS = ("encoder", "projector-contrastive", "projector-redundancy")
_ENCODED_VIEWS = 3  # a stream of randomness apart from those of training

Progress = Callable[[int, int], None]
Transform = Callable[..., Tensor]  # of images, and of the rows that they are


def encode(
    checkpoint: Checkpoint | LoadedEncoder | nn.Module,
    images: ImageSet,
    *,
    layer: str = "encoder",
    n_views: int = 0,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
    normalisation: str | None = None,
    progress: Progress | None = None,
) -> Representation:
    """Encode images, and augmented views of them, with a checkpoint's network in evaluation mode.

    Parameters
    ----------
    checkpoint : Checkpoint, LoadedEncoder or nn.Module
        A trained or untrained network; what `load_encoder` made of another tool's; or any module
        that maps images (B, C, H, W) to features (B, D).
    images : ImageSet
        N images of the size that the network was trained on.
    layer : {"encoder", "projector-contrastive", "projector-redundancy"}, default="encoder"
        Features before the projector, or one projector's output (of masked features, as in
        training).
    n_views : int, default=0
        V, augmented views of every image, drawn as in training; for what is no checkpoint as
        `TrainConfig` draws them by default.
    batch_size : int, default=512
        Images at a time. The result does not depend on it beyond rounding.
    seed : int, default=0
        Seed of the views: the same views for every checkpoint with the same augmentation.
    device : str, default="cpu"
        Where to encode.
    normalisation : {"none", "imagenet"}, optional
        What pixels in [0, 1] go through first. dimlab's checkpoints record it; for others name what
        the encoder was trained with, else it is ``none``.
    progress : callable, optional
        Called with (batches done, batches in all).

    Returns
    -------
    Representation
        *Unmasked* encoder features, float32, with labels, factors, views and the views'
        augmentation parameters; the mask stands in ``meta["mask"]``.

    Raises
    ------
    ValueError
        If the layer is unknown or not there, n_views is negative, batch_size < 1, the images have
        another shape, the normalisation is unknown or not the one recorded, the features are no
        matrix, or the checkpoint's weights do not fit its configuration, or the device is not
        there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    Under ``torchrun`` every process encodes its part of the rows, and all return the whole.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> images = digits("validation", image_size=8).take(range(6))
    >>> split = encode(untrained(TrainConfig.small(), images), images, n_views=2)
    >>> split.features.shape, split.views.shape, set(split.meta["mask"])
    ((6, 64), (2, 6, 64), {0.5})
    >>> sorted(split.view_factors)
    ['brightness', 'contrast', 'crop_scale', 'crop_x', 'crop_y', 'flip']
    """
    recorded, meta = _recorded(checkpoint)
    if recorded is not None and normalisation not in (None, recorded):
        raise Refusal(
            f"normalisation must be {recorded!r}, which the checkpoint records; got "
            f"{normalisation!r}."
        )
    if isinstance(checkpoint, nn.Module) or hasattr(checkpoint, "inspection"):
        if layer != "encoder":
            raise Refusal(f"layer must be 'encoder' for what is no checkpoint; got {layer!r}.")
        config = TrainConfig(normalisation=recorded or normalisation or "none")
        with _evaluating(cast("nn.Module | LoadedEncoder", checkpoint), device) as module:
            return _represent(
                lambda batch: _pooled(module, normalised(batch, config.normalisation)), config,
                images, n_views, batch_size, seed, device, progress, meta,
            )  # fmt: skip
    embed, meta = embedding(checkpoint, images, layer, device)
    return _represent(
        embed, checkpoint.config, images, n_views, batch_size, seed, device, progress, meta
    )


def encode_loader(
    module: nn.Module | LoadedEncoder,
    loader: Iterable[Any],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Representation:
    """Encode what any data loader yields with any module: no image set, no checkpoint.

    Parameters
    ----------
    module : nn.Module or LoadedEncoder
        Maps a batch (B, ...) to features (B, D); put into evaluation mode, and back.
    loader : iterable
        Yields batches: inputs alone, ``(inputs, labels, ...)``, or mappings with ``image`` (or
        ``images, inputs, pixel_values, x``) and perhaps ``label`` (``labels, target, targets, y``).
    device : str, default="cpu"
        Where to encode.
    progress : callable, optional
        Called with (batches done, batches in all; 0 where the loader does not know).

    Returns
    -------
    Representation
        Rows in the order of the loader: do not shuffle it.

    Raises
    ------
    ValueError
        If the loader yields nothing, a batch has no inputs, only some have labels, labels are no
        class ids, or the features have not two dimensions, or the device is not there.

    Examples
    --------
    >>> batches = [(torch.eye(2), torch.tensor([0, 1])), (torch.ones(1, 2), torch.tensor([1]))]
    >>> split = encode_loader(nn.Linear(2, 3), batches)
    >>> split.features.shape, split.labels.tolist()
    ((3, 3), [0, 1, 1])
    """
    n_batches = len(loader) if isinstance(loader, Sized) else 0
    blocks: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    with _evaluating(module, device) as evaluated, torch.inference_mode():
        for batch in loader:
            inputs, ids = _parts_of(batch)
            blocks.append(_pooled(evaluated, inputs.to(device)).float().cpu().numpy())
            if ids is not None:
                labels.append(_class_ids(ids, len(inputs)))
            if progress is not None:
                progress(len(blocks), n_batches)
    if not blocks:
        raise Refusal("loader must yield at least one batch; got none.")
    if len(labels) not in (0, len(blocks)):
        raise Refusal(
            f"loader must yield labels in each batch or in none; got them in {len(labels)} of "
            f"{len(blocks)}."
        )
    return Representation(
        np.concatenate(blocks),
        labels=np.concatenate(labels) if labels else None,
        meta=_recorded(module)[1],
    )


def _class_ids(found: Any, n_samples: int) -> np.ndarray:
    try:
        ids = torch.as_tensor(found).cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:  # names of classes, or of files
        raise Refusal(
            f"loader must yield class ids (B,) as labels; got {type(found).__name__}: {error}."
        ) from error
    if ids.shape != (n_samples,) or (ids != ids.astype(np.int64)).any():
        raise Refusal(f"loader must yield class ids (B,) as labels; got {ids.dtype} {ids.shape}.")
    return ids.astype(np.int64)


def _recorded(checkpoint: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the normalisation that is recorded, and where features come from."""
    if isinstance(checkpoint, nn.Module):
        return None, {"source": type(checkpoint).__name__, "layer": "encoder"}
    if not hasattr(checkpoint, "inspection"):
        return checkpoint.config.normalisation, {}
    facts = checkpoint.inspection.facts
    meta = {"source": checkpoint.inspection.name, "layer": "encoder", "encoder": facts["encoder"]}
    meta |= {name: facts[name] for name in ("layout", "prefix", "branch") if name in facts}
    if checkpoint.mask is not None:
        meta["mask"] = [float(weight) for weight in checkpoint.mask.weights]
    return facts.get("normalisation"), meta


_INPUTS = ("image", "images", "inputs", "pixel_values", "x")
_TARGETS = ("label", "labels", "target", "targets", "y")


def _parts_of(batch: Any) -> tuple[Tensor, Any]:
    """Take inputs and labels out of a loader's batch."""
    if isinstance(batch, Mapping):
        inputs = next((batch[name] for name in _INPUTS if name in batch), None)
        ids = next((batch[name] for name in _TARGETS if name in batch), None)
    elif isinstance(batch, (list, tuple)):
        inputs, ids = batch[0] if batch else None, batch[1] if len(batch) > 1 else None
    else:
        inputs, ids = batch, None
    if not isinstance(inputs, Tensor):
        raise Refusal(
            f"loader must yield tensors, tuples or mappings with {', '.join(_INPUTS)}; got "
            f"{type(batch).__name__}."
        )
    return inputs, ids


@contextmanager
def _evaluating(given: nn.Module | LoadedEncoder, device: str) -> Iterator[nn.Module]:
    """Put a module into evaluation mode on a device, and every part of it back afterwards."""
    check_device(device)
    module = given if isinstance(given, nn.Module) else given.module
    modes = [(each, each.training) for each in module.modules()]
    home = next((each.device for each in module.parameters()), None)
    try:
        yield module.to(device).eval()
    finally:
        for each, mode in modes:
            each.training = mode
        if home is not None:
            module.to(home)


def _pooled(module: nn.Module, batch: Tensor) -> Tensor:
    features = module(batch)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise Refusal(
            f"module must give features of shape (B, D); got {shape}. Pool them, as by "
            "features.mean((2, 3))."
        )
    return features


def encode_moments(
    checkpoint: Checkpoint,
    images: ImageSet,
    *,
    layer: str = "encoder",
    views: bool = False,
    n_blocks: int = N_BLOCKS,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Moments:
    """Encode images, or two views of each, straight into moments: no features are stored.

    Parameters
    ----------
    checkpoint, images, layer, batch_size, seed, device, progress
        As in `encode`.
    views : bool, default=False
        Moments of pairs: the two views that ``encode(..., n_views=2)`` draws.
    n_blocks : int, default=20
        Blocks for intervals, see `Moments`.

    Returns
    -------
    Moments
        Those of what `encode` returns, to rounding.

    Raises
    ------
    ValueError
        As `encode`, and if n_blocks < 1.

    Notes
    -----
    Under ``torchrun`` every process encodes its part of the rows, and all return the whole.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> images = digits("validation", image_size=8).take(range(30))
    >>> checkpoint = untrained(TrainConfig.small(), images)
    >>> moments = encode_moments(checkpoint, images, n_blocks=2)
    >>> features = encode(checkpoint, images).features
    >>> moments.n, np.allclose(moments.mean[0], features.mean(axis=0), atol=1e-5)
    (30, True)
    """
    _check_sizes(0, batch_size)
    embed, _ = embedding(checkpoint, images, layer, device)
    transforms = [_unchanged]
    if views:
        transforms = [apply for apply, _ in _drawn_views(checkpoint.config, images, 2, seed)]
    blocks = _encoded(embed, images, transforms, batch_size, device, progress)
    batches = (tuple(each.cpu().numpy() for each in block) for block in blocks)
    first_row = current_world().rows(len(images)).start
    own = Moments.of(batches, n_blocks=n_blocks, seed=seed, first_row=first_row, device=device)
    return own.over_ranks()


def embedding(
    checkpoint: Checkpoint, images: ImageSet, layer: str, device: str
) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """Map a batch of pixels to a layer's output, and say where the features come from."""
    check_device(device)
    if layer not in LAYERS:
        raise Refusal(f"layer must be one of {', '.join(LAYERS)}; got {layer!r}.")
    shape = tuple(checkpoint.data["shape"])
    if images.images.shape[1:] != shape:
        raise Refusal(
            f"images must have shape (N, {shape[0]}, {shape[1]}, {shape[2]}), that of training; "
            f"got {images.images.shape}."
        )
    network = checkpoint.build_network().to(device).eval()
    mask = torch.tensor(checkpoint.mask.weights, dtype=torch.float32).to(device)

    def embed(batch: Tensor) -> Tensor:
        features = network["encoder"](normalised(batch, checkpoint.config.normalisation))
        if layer == "encoder":
            return features
        projector = network[layer.removeprefix("projector-")]
        return projector(features * mask if checkpoint.has_mask else features)

    meta = {
        "source": checkpoint.config.encoder,
        "layer": layer,
        "step": checkpoint.step,
        "seed": checkpoint.config.seed,
        "method": checkpoint.config.method,
    }
    if checkpoint.has_mask and layer == "encoder":
        meta["mask"] = [float(weight) for weight in checkpoint.mask.weights]
    return embed, meta


def _check_sizes(n_views: int, batch_size: int) -> None:
    if n_views < 0 or batch_size < 1:
        raise Refusal(f"n_views must be >= 0 and batch_size >= 1; got {n_views} and {batch_size}.")


def _unchanged(images: Tensor, *, rows: slice) -> Tensor:
    return images


def _drawn_views(
    config: TrainConfig, images: ImageSet, n_views: int, seed: int
) -> list[tuple[Transform, dict[str, np.ndarray]]]:
    """Draw the augmentation of each view: what applies it, and its factors, one value a sample."""
    _, n_channels, height, width = images.images.shape
    augmentation = Augmentation(config, n_channels, (height, width))
    drawn = [
        augmentation.draw(len(images), derived_seed(seed, _ENCODED_VIEWS, view))
        for view in range(n_views)
    ]
    return [(partial(augmentation.apply, drawn=each), augmentation.factors(each)) for each in drawn]


def pixels_of(images: ImageSet, rows: slice, device: str) -> Tensor:
    """Return the (B, C, H, W) pixels of some rows in [0, 1] on a device."""
    return torch.from_numpy(np.array(images.images[rows])).to(device).float() / 255


def encode_pixels(
    images: ImageSet, config: TrainConfig, *, n_views: int = 0, batch_size: int = 512, seed: int = 0
) -> Representation:
    """Take the raw pixels in [0, 1] as features: the baseline that needs no training.

    Parameters
    ----------
    images : ImageSet
        N images.
    config : TrainConfig
        Its augmentation makes the views.
    n_views : int, default=0
        V, augmented views of every image.
    batch_size : int, default=512
        Images at a time.
    seed : int, default=0
        Seed of the views: the same as those that `encode` draws.

    Returns
    -------
    Representation
        Features of shape (N, C * H * W), float32.

    Raises
    ------
    ValueError
        If n_views is negative or batch_size < 1.

    Examples
    --------
    >>> from dimlab.images import ImageSet
    >>> pixels = np.array([[0, 255], [51, 102]], np.uint8).reshape(2, 1, 1, 2)
    >>> images = ImageSet(pixels, np.array([0, 1]), name="two")
    >>> encode_pixels(images, TrainConfig.small()).features
    array([[0. , 1. ],
           [0.2, 0.4]], dtype=float32)
    """
    meta = {"source": "raw pixels", "layer": "pixels"}
    return _represent(
        lambda batch: batch.flatten(1), config, images, n_views, batch_size, seed, "cpu", None, meta
    )


def _encoded(
    embed: Callable[[Tensor], Tensor],
    images: ImageSet,
    transforms: Sequence[Transform],
    batch_size: int,
    device: str,
    progress: Progress | None,
) -> Iterator[list[Tensor]]:
    """Yield the (B, D) features of each transform of a batch, over this rank's rows in order."""
    mine = current_world().rows(len(images))
    starts = range(mine.start, mine.stop, batch_size)
    for done, start in enumerate(starts, start=1):
        rows = slice(start, min(start + batch_size, mine.stop))
        batch = pixels_of(images, rows, device)
        with torch.inference_mode():
            block = [embed(transform(batch, rows=rows)).float() for transform in transforms]
        yield block
        if progress is not None:
            progress(done, len(starts))


def _represent(
    embed: Callable[[Tensor], Tensor],
    config: TrainConfig,
    images: ImageSet,
    n_views: int,
    batch_size: int,
    seed: int,
    device: str,
    progress: Progress | None,
    meta: dict[str, Any],
) -> Representation:
    _check_sizes(n_views, batch_size)
    n_samples, world = len(images), current_world()
    drawn = _drawn_views(config, images, n_views, seed)
    transforms = [_unchanged, *(apply for apply, _ in drawn)]
    blocks: list[list[Tensor]] = []
    for block in _encoded(embed, images, transforms, batch_size, device, progress):
        if not blocks:  # one batch says how wide the features are
            width = block[0].shape[1]
            needed = 4 * max(2, 1 + 2 * n_views) * n_samples * width
            hold(needed, "encode", f"{n_samples:,} x {width:,} values", "Pass fewer --views.")
        blocks.append(block if world.size > 1 else [each.cpu() for each in block])
    features, *views = (
        all_gather(torch.cat(each), n_samples, world).cpu().numpy()
        for each in zip(*blocks, strict=True)
    )
    factors = [each for _, each in drawn]
    return Representation(
        features,
        labels=images.labels,
        factors=images.factors,
        periods=images.periods,
        views=np.stack(views) if views else None,
        view_factors={
            name: np.stack([each[name] for each in factors]) for name in (factors or [{}])[0]
        },
        meta={
            **meta,
            "data": images.name,
            "split": images.split,
            "labels_hash": images.labels_hash,
        },
    )
