"""The bridge from training to probes: a checkpoint and images become a Representation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from dimlab._loaders import encode_loader, evaluating, features_of, is_loader, recorded_of
from dimlab._scratch import Store
from dimlab.datasets.objects import as_images
from dimlab.decoding import Slices, batches, say_left_out
from dimlab.devices import check_device, give_back, hold
from dimlab.images import ImageFiles, ImageSet, Recipe, asked_of, fit
from dimlab.moments import N_BLOCKS, Moments
from dimlab.processes import current_world
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.training.augment import Augmentation, derived_seed, normalised
from dimlab.training.config import TrainConfig

if TYPE_CHECKING:
    from dimlab.io.weights import LoadedEncoder
    from dimlab.training.checkpoint import Checkpoint

LAYERS = ("encoder", "projector-contrastive", "projector-redundancy")
_ENCODED_VIEWS = 3  # a stream of randomness apart from those of training
_CPU = 3
_MOST, _FEWEST, _LARGE = 512, 16, 64  # images at a time; the side in pixels from which fewer

Progress = Callable[[int, int], None]
Transform = Callable[..., Tensor]  # of images, and of the rows that they are


def encode(
    checkpoint: Checkpoint | LoadedEncoder | nn.Module,
    images: Any,
    *,
    layer: str = "encoder",
    n_views: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    image_size: int | None = None,
    resize: int | None = None,
    crop: str | None = None,
    normalisation: str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Representation:
    """Encode images, and augmented views of them, with a checkpoint's network in evaluation mode.

    Parameters
    ----------
    checkpoint : Checkpoint, LoadedEncoder or nn.Module
        A trained or untrained network; what `load_encoder` read from another tool's file; or any
        module that maps images (B, C, H, W) to features (B, D).
    images : ImageSet, or a data set of Hugging Face or torch
        N images. Files are decoded as the encoder's recipe says. A torch ``DataLoader`` goes to
        `encode_loader`, and its tensors go in as they are.
    layer : {"encoder", "projector-contrastive", "projector-redundancy"}, default="encoder"
        Features before the projector, or one projector's output (of masked features, as in
        training).
    n_views : int, default=0
        V, augmented views of every image, drawn as in training; for what is no checkpoint as
        `TrainConfig` draws them by default.
    batch_size : int, optional
        Images at a time; by default 512 up to 64 px, and fewer of larger ones. The result does not
        depend on it beyond rounding.
    seed : int, default=0
        Seed of the views: the same views for every checkpoint with the same augmentation.
    device : str, default="cpu"
        Where to encode.
    image_size : int, optional
        Side in pixels of the square that the encoder takes. By default what the checkpoint or the
        files beside it record, else what is usual for the encoder: 224 behind an ImageNet stem and
        for a vision transformer, 32 for dimlab's own. Images in memory stay as they are.
    resize : int, optional
        Length in pixels of the short side before the centre is cropped; by default as recorded,
        else 256 for 224.
    crop : {"centre", "squash"}, optional
        How an image becomes a square: its centre is cut out, or both sides are resized.
    normalisation : str, optional
        What pixels in [0, 1] go through first: none, imagenet, clip, half, or means and deviations
        as 0.5,0.5,0.5/0.2,0.2,0.2. dimlab's checkpoints and many others record it; else it is
        ``none``.
    scratch : path, optional
        Folder in which features are collected, instead of in memory. Another call with the same
        inputs goes on there at the last 4,096 rows that are whole. Remove it when the result is
        saved.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    Representation
        *Unmasked* encoder features, float32, with labels, factors, views and the views'
        augmentation parameters; the mask stands in ``meta["mask"]``, what became of image files in
        ``meta["transform"]``, rows that could not be read in ``meta["left_out"]``.

    Raises
    ------
    ValueError
        If the layer is unknown or not there, n_views is negative, batch_size < 1, the images have
        another shape, an image cannot be read, the normalisation is unknown or not the one
        recorded, the features are no matrix, or the checkpoint's weights do not fit its
        configuration, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Warns
    -----
    UserWarning
        If images that cannot be read were left out, as asked.

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
    is_own = not (isinstance(checkpoint, nn.Module) or hasattr(checkpoint, "inspection"))
    if not is_own and layer != "encoder":
        raise Refusal(f"layer must be 'encoder' for what is no checkpoint; got {layer!r}.")
    if is_loader(images):
        return encode_loader(checkpoint, images, device=device, progress=progress)
    recorded, meta = recorded_of(checkpoint, layer)
    if recorded is not None and normalisation not in (None, recorded):
        raise Refusal(
            f"normalisation must be {recorded!r}, which the checkpoint records; got "
            f"{normalisation!r}."
        )
    asked = Recipe.of(
        "as asked", size=image_size, resize=resize, crop=crop, normalisation=normalisation
    )
    images, recipe = fitted(as_images(images), checkpoint, asked)
    folder = None if scratch is None else Path(scratch)
    how = _How(n_views, batch_size, seed, device, progress, folder)
    if isinstance(images.images, ImageFiles) or recipe.over(asked) != recipe:
        meta["transform"] = recipe.in_words()
    if is_own:
        own = cast("Checkpoint", checkpoint)
        embed = embedding(own, images, layer, device)
        return _represent(embed, own.config, images, how, meta, own.network)
    known = recorded or recipe.normalisation or "none"
    with evaluating(cast("nn.Module | LoadedEncoder", checkpoint), device) as module:
        return _represent(
            lambda batch: features_of(module(normalised(batch, known)), len(batch)),
            TrainConfig(), images, how, meta, module.state_dict(),
        )  # fmt: skip


def fitted(images: ImageSet, network: Any, asked: Recipe | None = None) -> tuple[ImageSet, Recipe]:
    """Return images as a network takes them, and the recipe that says so.

    What is asked for comes first, then what the images' own recipe says, the checkpoint's record,
    and what is usual. Images in memory are resized only where that is asked for.
    """
    asked = Recipe() if asked is None else asked
    wanted = asked.over(asked_of(images)).over(recipe_of(network))
    if isinstance(images.images, ImageFiles) or asked.size or asked.resize:
        return fit(images, wanted), wanted
    size = images.images.shape[2:]
    if wanted.fixed and size != (wanted.size, wanted.size):
        raise Refusal(
            f"images must be of {wanted.size} x {wanted.size} pixels, as the encoder takes no "
            f"others; got {size[0]} x {size[1]}. Pass image_size={wanted.size} (--image-size "
            f"{wanted.size})."
        )
    return images, Recipe(normalisation=wanted.normalisation, sources=wanted.sources)


def recipe_of(network: Any) -> Recipe:
    """Return what is known of the images that a network takes, and what is usual for it."""
    if isinstance(network, nn.Module):
        return Recipe.of_torchvision("usual for a module that does not say")
    if hasattr(network, "inspection"):
        known: Recipe = getattr(network, "recipe", Recipe())
        return known.over(Recipe.of_torchvision("usual for ImageNet encoders"))
    side = network.data["shape"][1]
    recorded = network.data.get("recipe") or {"size": side, "resize": side, "crop": "centre"}
    return Recipe.of(
        "the checkpoint's record", **recorded, normalisation=network.config.normalisation
    )


def encode_moments(
    checkpoint: Checkpoint,
    images: ImageSet,
    *,
    layer: str = "encoder",
    views: bool = False,
    n_blocks: int = N_BLOCKS,
    batch_size: int | None = None,
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
    how = _How(0, batch_size, seed, device, progress)
    images, _ = fitted(images, checkpoint)
    embed = embedding(checkpoint, images, layer, device)
    transforms = [_unchanged]
    if views:
        transforms = [apply for apply, _ in _drawn_views(checkpoint.config, images, 2, seed)]
    encoded = _encoded(embed, images, transforms, how)
    kept: list[np.ndarray] = []  # of the rows of this process, batch by batch

    def blocks() -> Iterator[tuple[np.ndarray, ...]]:
        for read, block in encoded:
            kept.append(read)
            if block:
                yield tuple(each.cpu().numpy() for each in block)

    first_row = current_world().rows(len(images)).start
    own = Moments.of(blocks(), n_blocks=n_blocks, seed=seed, first_row=first_row, device=device)
    say_left_out(images.images, first_row + np.flatnonzero(~np.concatenate(kept)))
    return own.over_ranks()


def embedding(
    checkpoint: Checkpoint, images: ImageSet, layer: str, device: str
) -> Callable[[Tensor], Tensor]:
    """Return what maps a batch of pixels to a layer's output."""
    check_device(device)
    if layer not in LAYERS:
        raise Refusal(f"layer must be one of {', '.join(LAYERS)}; got {layer!r}.")
    shape = tuple(checkpoint.data["shape"])
    if images.images.shape[1:] != shape:
        square = shape[1] == shape[2] and images.images.shape[1] == shape[0]
        resized = f" Pass image_size={shape[1]} (--image-size {shape[1]})." if square else ""
        raise Refusal(
            f"images must have shape (N, {shape[0]}, {shape[1]}, {shape[2]}), that of training; "
            f"got {images.images.shape}.{resized}"
        )
    network = checkpoint.build_network().to(device).eval()
    mask = torch.tensor(checkpoint.mask.weights, dtype=torch.float32).to(device)

    def embed(batch: Tensor) -> Tensor:
        features = network["encoder"](normalised(batch, checkpoint.config.normalisation))
        if layer == "encoder":
            return features
        projector = network[layer.removeprefix("projector-")]
        return projector(features * mask if checkpoint.has_mask else features)

    return embed


@dataclass(frozen=True)
class _How:
    """How images are encoded; what is out of range is refused."""

    n_views: int
    batch_size: int | None
    seed: int
    device: str
    progress: Progress | None
    scratch: Path | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.n_views < 0 or (self.batch_size is not None and self.batch_size < 1):
            raise Refusal(
                f"n_views must be >= 0 and batch_size >= 1; got {self.n_views} and "
                f"{self.batch_size}."
            )

    def batch_for(self, shape: Sequence[int]) -> int:
        """Return images at a time: fewer of large ones, whose activations take more memory."""
        share = shape[-1] * shape[-2] / _LARGE**2
        if share > 1 and str(self.device) == "cpu":
            share *= _CPU  # a processor gains nothing by more, which only take memory
        return self.batch_size or max(_FEWEST, min(_MOST, int(_MOST / share)))


def _unchanged(images: Tensor, *, rows: Tensor) -> Tensor:
    return images


def _drawn_views(
    config: TrainConfig, images: ImageSet, n_views: int, seed: int
) -> list[tuple[Transform, dict[str, np.ndarray]]]:
    """Draw the augmentation of each view: what applies it, and its factors, one value a sample."""
    if n_views == 0:
        return []  # without the time that importing the augmentations takes
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
    images: ImageSet,
    config: TrainConfig,
    *,
    n_views: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
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
    batch_size : int, optional
        Images at a time, as in `encode`.
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
    how = _How(n_views, batch_size, seed, "cpu", None)
    return _represent(lambda batch: batch.flatten(1), config, images, how, meta, {})


def _encoded(
    embed: Callable[[Tensor], Tensor],
    images: ImageSet,
    transforms: Sequence[Transform],
    how: _How,
    *,
    done: int = 0,
) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
    """Yield which rows of a batch could be read, and (b, D) features of these by transform."""
    # of this rank's rows, in order, behind those that are done
    mine = current_world().rows(len(images))
    rows_at = Slices(mine.start + done, mine.stop, how.batch_for(images.images.shape))
    for rows, pixels, faults in batches(images.images, rows_at, range(len(rows_at))):
        kept = np.ones(len(rows), dtype=bool)
        kept[list(faults)] = False
        block: list[Tensor] = []
        if kept.any():
            batch = pixels[torch.from_numpy(kept)].to(how.device).float() / 255
            chosen = torch.from_numpy(rows[kept])
            with torch.inference_mode():
                block = [embed(transform(batch, rows=chosen)).float() for transform in transforms]
        yield kept, block
        give_back()
        done += len(rows)
        if how.progress is not None:
            how.progress(done, mine.stop - mine.start)


def _represent(
    embed: Callable[[Tensor], Tensor],
    config: TrainConfig,
    images: ImageSet,
    how: _How,
    meta: dict[str, Any],
    weights: Mapping[str, Tensor],
) -> Representation:
    n_samples, world = len(images), current_world()
    drawn = _drawn_views(config, images, how.n_views, how.seed)
    transforms = [_unchanged, *(apply for apply, _ in drawn)]
    meta = {
        **meta,
        "data": images.name,
        "split": images.split,
        "labels_hash": images.labels_hash,
    }
    if images.labels is not None and images.class_names:
        meta["class_names"] = list(images.class_names)
    key = "" if how.scratch is None else _fingerprint(images, weights, meta, how)
    store = Store(how.scratch, key, len(transforms), n_samples, world)

    def check(width: int) -> None:
        needed = 4 * max(2, len(transforms)) * n_samples * width
        hold(needed, "encode", f"{n_samples:,} x {width:,} values", "Pass fewer --views.")

    for kept, block in _encoded(embed, images, transforms, how, done=store.done):
        store.put(kept, block, check)
    features, kept = store.whole(how.device)
    if features is None or not kept.any():
        raise Refusal("images must hold at least one that can be read; got none.")
    factors = [each for _, each in drawn]
    if not kept.all():
        say_left_out(images.images, np.flatnonzero(~kept))
        meta["left_out"] = np.flatnonzero(~kept).tolist()
        images, features = images.take(kept), features[:, kept]
        factors = [{name: each[kept] for name, each in view.items()} for view in factors]
    return Representation(
        features[0],
        labels=images.labels,
        factors=images.factors,
        periods=images.periods,
        views=features[1:] if factors else None,
        view_factors={
            name: np.stack([each[name] for each in factors]) for name in (factors or [{}])[0]
        },
        meta=meta,
    )


def _fingerprint(
    images: ImageSet, weights: Mapping[str, Tensor], meta: Mapping[str, Any], how: _How
) -> str:
    """Return a hash of what decides the features, and of how the rows are divided."""
    digest = hashlib.sha256(json.dumps(meta, default=str).encode())
    digest.update(f"{how.n_views} {how.seed} {len(images)} {current_world().size}".encode())
    digest.update(repr(asked_of(images)).encode())
    for name, each in weights.items():
        digest.update(name.encode())
        digest.update(each.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    known = getattr(images.images, "names", None)
    digest.update(images.images_hash.encode() if known is None else "\n".join(known).encode())
    return digest.hexdigest()
