"""Localisation: which images, and where in them, drive a dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dimlab._encode import Progress, embedding, encode, fitted, pixels_of
from dimlab.kernels.blocks import blocks
from dimlab.kernels.rounding import spread_floor
from dimlab.refusals import Refusal
from dimlab.result import Result, column, detail, entries, entry, scalar

if TYPE_CHECKING:
    from dimlab.images import ImageSet
    from dimlab.training.checkpoint import Checkpoint

FILLS = ("mean", "zero")
_ROWS = 512  # images summed at a time


@dataclass(frozen=True, eq=False, repr=False)
class Localisation(Result):
    """The n images of largest activation of each of d dimensions, and two maps of each.

    References
    ----------
    Those of `locate`, which makes it.

    Examples
    --------
    >>> occlusion, gradient = np.zeros((2, 1, 1, 8, 8), np.float32)
    >>> occlusion[0, 0, 0, 7] = 2.0  # covering the upper right corner costs 2
    >>> found = Localisation(
    ...     np.array([3]), np.array([[5]]), np.array([[4.0]]), occlusion, gradient,
    ...     np.array([[np.nan]]), np.zeros((1, 1, 1, 8, 8), np.uint8), np.array([[1]]), (),
    ...     mean_activation=np.array([1.0]), std_activation=np.array([1.5]), patch=2, stride=1,
    ...     fill="mean", n_samples=20,
    ... )
    >>> found
    Localisation(n_samples=20, n_images=1, patch=2, stride=1, fill='mean', border_area=0.75)
    >>> found.z_score.tolist(), found.peak.tolist(), found.to_frame()["peak_x"].tolist()
    ([[2.0]], [[[0, 7]]], [7])
    >>> found.border_share.tolist(), found.border_area, list(found.summary()["dimensions"])
    ([1.0], 0.75, ['3'])
    """

    dimensions: np.ndarray = detail("The dimensions asked for, in the order asked, shape (d,).")
    rows: np.ndarray = detail("Rows of the image set, largest activation first, shape (d, n).")
    activations: np.ndarray = detail("Activation by each of these images, shape (d, n).")
    occlusion: np.ndarray = detail(
        "Fall of the activation, original minus occluded, when a patch is covered: for each pixel "
        "the mean over the patches that cover it, shape (d, n, H, W). Positive: the place drives "
        "the dimension up."
    )
    gradient: np.ndarray = detail(
        "Absolute derivative of the activation by the pixel in [0, 1], summed over channels, shape "
        "(d, n, H, W)."
    )
    agreement: np.ndarray = detail(
        "Spearman's correlation of the *size* of the occlusion effect with the gradient, over "
        "pixels, shape (d, n). NaN where either does not vary."
    )
    images: np.ndarray = detail("The images, shape (d, n, C, H, W), uint8.")
    labels: np.ndarray = detail("Their class ids, shape (d, n).")
    class_names: tuple[str, ...] = detail("One name a class, or empty.")
    mean_activation: np.ndarray = detail("Mean over all N images, shape (d,).")
    std_activation: np.ndarray = detail(
        "Standard deviation over them, shape (d,), exactly 0 where the dimension does not vary."
    )

    n_samples: int = scalar("N, the images that the n were chosen from.")

    @entry
    def n_images(self) -> int:
        """Images shown of each dimension, n."""
        return self.rows.shape[1]

    patch: int = scalar("Side of the square patch, in pixels.")
    stride: int = scalar("Step between patches, in pixels.")
    fill: str = scalar("What covers: `mean` or `zero`.")

    def __len__(self) -> int:
        return len(self.dimensions)

    @property
    def z_score(self) -> np.ndarray:
        """Standard deviations above the mean of all images, (d, n); NaN where none varies."""
        spread = np.where(self.std_activation > 0, self.std_activation, np.nan)[:, None]
        return (self.activations - self.mean_activation[:, None]) / spread

    @property
    def peak(self) -> np.ndarray:
        """Pixel (y, x) of the largest fall, (d, n, 2) int; -1 where covering lowers nothing.

        Of equal ones the first, row by row.
        """
        flat = self.occlusion.reshape(*self.rows.shape, -1)
        found = np.stack(np.divmod(flat.argmax(axis=-1), self.occlusion.shape[-1]), axis=-1)
        return np.where(flat.max(axis=-1, keepdims=True) > 0, found, -1)

    @property
    def border_share(self) -> np.ndarray:
        """Share of the absolute occlusion effect near the border, mean over the images, (d,).

        Near is within a quarter of the side. An even map gives `border_area`; more says that the
        dimension reads the border, where the background is. NaN where there is no effect at all.
        With ``fill="zero"`` a black background has no effect by construction.
        """
        effect = np.abs(self.occlusion).astype(np.float64)
        whole = effect.sum(axis=(2, 3))
        near = np.where(self._near_border, effect, 0).sum(axis=(2, 3))
        counted = whole > 0
        shares = np.divide(near, whole, out=np.zeros_like(whole), where=counted).sum(axis=1)
        n_counted = counted.sum(axis=1)
        return np.where(n_counted > 0, shares / np.maximum(n_counted, 1), np.nan)

    @entry
    def border_area(self) -> float:
        """Share of the pixels that lie within a quarter of the side of the border."""
        return float(self._near_border.mean())

    @property
    def _near_border(self) -> np.ndarray:
        height, width = self.occlusion.shape[2:]
        near = np.ones((height, width), dtype=bool)
        near[height // 4 : height - height // 4, width // 4 : width - width // 4] = False
        return near

    @column
    def of_images(self) -> dict[str, Any]:
        """Each dimension with each of its images: class, activation, pixel of the largest fall."""
        labels = self.labels.ravel()
        names = [self.class_names[label] if self.class_names else "" for label in labels]
        return {
            "dimension": np.repeat(self.dimensions, self.n_images),
            "rank": np.tile(np.arange(1, self.n_images + 1), len(self)),
            "row": self.rows.ravel(),
            "label": labels,
            "class_name": names,
            "activation": self.activations.ravel(),
            "z_score": self.z_score.ravel(),
            "peak_y": self.peak[..., 0].ravel(),
            "peak_x": self.peak[..., 1].ravel(),
            "agreement": self.agreement.ravel(),
        }

    @entries
    def of_dimensions(self) -> dict[str, Any]:
        """Largest activation, commonest class, border share and agreement of each dimension."""
        z_score, border_share, each = self.z_score, self.border_share, {}
        for place, dimension in enumerate(self.dimensions):
            classes, counts = np.unique(self.labels[place], return_counts=True)
            known = self.agreement[place][~np.isnan(self.agreement[place])]
            commonest = int(classes[counts.argmax()])
            each[str(dimension)] = {
                "largest_activation": self.activations[place, 0],
                "z_score": z_score[place, 0],
                "class": self.class_names[commonest] if self.class_names else commonest,
                "n_of_class": counts.max(),
                "border_share": border_share[place],
                "agreement": known.mean() if len(known) else None,
            }
        return {"dimensions": each}


def locate(
    checkpoint: Checkpoint,
    images: ImageSet,
    dimensions: Sequence[int] | np.ndarray,
    *,
    directions: np.ndarray | None = None,
    n_images: int = 6,
    patch: int | None = None,
    stride: int | None = None,
    fill: str = "mean",
    batch_size: int = 512,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Localisation:
    """Find the images that activate dimensions most, and the places in them that do it.

    Parameters
    ----------
    checkpoint : Checkpoint
        A trained or untrained network.
    images : ImageSet
        N images of the size that the network was trained on.
    dimensions : sequence of int
        d dimensions in [0, D), each once; of ``directions`` columns in [0, S).
    directions : ndarray of shape (D, S), optional
        Look along these directions of feature space instead of dimensions, such as those of
        `Suspects` or of a `Basis`.
    n_images : int, default=6
        n, images of largest activation of each dimension; of equal ones the lower row comes first.
    patch : int, optional
        Side of the square that is covered, in pixels; by default a seventh of the image's shorter
        side, at least 2.
    stride : int, optional
        Step between patches, in pixels, in [1, patch]; by default half a patch. A last patch always
        ends at the border.
    fill : {"mean", "zero"}, default="mean"
        What covers: the mean pixel of ``images``, by channel, or black.
    batch_size : int, default=512
        Images, or covered copies of an image, at a time. The result does not depend on it beyond
        rounding.
    device : str, default="cpu"
        Where to encode.
    progress : callable, optional
        Called with (done, total): images encoded, then maps.

    Returns
    -------
    Localisation
        Rows, activations and maps. Activations are those of `encode`: unmasked encoder features.

    Raises
    ------
    ValueError
        If the images have another shape than those of training, ``directions`` has another shape
        than (D, S), ``dimensions`` is empty, names one twice or one outside its range, another
        number is out of its range, the fill is unknown, or the
        device is not there.

    Notes
    -----
    Covering [1]_ asks what the dimension loses without a place, but adds an object of its own: a
    patch of the mean on a black background can raise or lower the activation, and a black patch
    there changes nothing in any dimension. The gradient [2]_ asks what a small change
    would do. Hence both, with their agreement. Maps alone do not show that a network learned
    something [3]_: compare with those of an untrained one.

    References
    ----------
    .. [1] Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    .. [2] Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", ICLR workshop
       2014.
    .. [3] Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.config import TrainConfig
    >>> from dimlab.training.loop import untrained
    >>> some = digits("test").take(range(20))
    >>> result = locate(untrained(TrainConfig.small(), some), some, [3, 5], n_images=2)
    >>> result.occlusion.shape, result.patch, result.stride
    ((2, 2, 28, 28), 4, 2)
    """
    images, _ = fitted(images, checkpoint)
    embed = embedding(checkpoint, images, "encoder", device)
    along = _checked_directions(directions, len(checkpoint.mask_logits))
    if along is None:
        asked = _checked_dimensions(dimensions, len(checkpoint.mask_logits), "the checkpoint")
    else:
        asked = _checked_dimensions(dimensions, along.shape[1], "directions")
        embed = _turned(embed, torch.from_numpy(along.astype(np.float32)).to(device))
    height, width = images.images.shape[2:]
    patch, stride = _checked_sizes(n_images, len(images), patch, stride, min(height, width))
    if fill not in FILLS:
        raise Refusal(f"fill must be one of {', '.join(FILLS)}; got {fill!r}.")
    total = len(images) + len(asked) * n_images

    def encoded(done: int, _: int) -> None:
        if progress is not None:
            progress(done, total)

    def mapped(done: int) -> None:
        if progress is not None:
            progress(len(images) + done, total)

    represented = encode(checkpoint, images, batch_size=batch_size, device=device, progress=encoded)
    if "left_out" in represented.meta:  # they could not be read
        images = images.take(np.delete(np.arange(len(images)), represented.meta["left_out"]))
    features = represented.features.astype(np.float64)
    features = features[:, asked] if along is None else features @ along[:, asked]
    rows = np.argsort(-features, axis=0, kind="stable")[:n_images].T
    covers = _covers(height, patch, stride), _covers(width, patch, stride)
    covering = _covering(images, fill, device)
    occlusion, gradient = _maps(embed, images, asked, rows, covers, covering, batch_size, mapped)
    spread, size = features.std(axis=0), np.abs(features).max(axis=0)
    return Localisation(
        dimensions=asked,
        rows=rows,
        activations=np.take_along_axis(features.T, rows, axis=1),
        occlusion=occlusion,
        gradient=gradient,
        agreement=_agreement(np.abs(occlusion), gradient),
        images=images.images[rows.ravel()].reshape(*rows.shape, *images.images.shape[1:]),
        labels=np.zeros_like(rows) if images.labels is None else images.labels[rows],
        class_names=tuple(images.class_names),
        mean_activation=features.mean(axis=0),
        std_activation=np.where(spread > spread_floor(size, represented.eps), spread, 0.0),
        patch=patch,
        stride=stride,
        fill=fill,
        n_samples=len(images),
    )


def _checked_directions(directions: Any, n_dimensions: int) -> np.ndarray | None:
    if directions is None:
        return None
    along = np.asarray(directions, dtype=np.float64)
    if along.ndim != 2 or len(along) != n_dimensions or not along.size:
        raise Refusal(
            f"directions must have shape ({n_dimensions}, S), one column a direction of the "
            f"checkpoint's features; got {along.shape}."
        )
    return along


def _turned(embed: Callable[[Tensor], Tensor], directions: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda batch: embed(batch) @ directions


def _checked_dimensions(dimensions: Any, n_dimensions: int, of_what: str) -> np.ndarray:
    asked = np.asarray(dimensions)
    if asked.ndim != 1 or asked.size == 0 or asked.dtype.kind not in "iu":
        raise Refusal(
            "dimensions must be a list of at least one index; "
            f"got {asked.dtype} of shape {asked.shape}."
        )
    outside = asked[(asked < 0) | (asked >= n_dimensions)]
    if len(outside):
        raise Refusal(
            f"dimensions must lie in [0, {n_dimensions}), those of {of_what}; got {outside[0]}."
        )
    values, counts = np.unique(asked, return_counts=True)
    if counts.max() > 1:
        raise Refusal(f"dimensions must differ; got {values[counts.argmax()]} more than once.")
    return asked.astype(np.int64)


def _checked_sizes(
    n_images: int, n_samples: int, patch: int | None, stride: int | None, side: int
) -> tuple[int, int]:
    if not 1 <= n_images <= n_samples:
        raise Refusal(
            f"n_images must lie in [1, {n_samples}], the number of images; got {n_images}."
        )
    patch = min(max(2, round(side / 7)), side) if patch is None else patch
    if not 1 <= patch <= side:
        raise Refusal(f"patch must lie in [1, {side}], the image's shorter side; got {patch}.")
    stride = max(1, patch // 2) if stride is None else stride
    if not 1 <= stride <= patch:
        raise Refusal(
            f"stride must lie in [1, {patch}], the patch, or a gap would never be covered; "
            f"got {stride}."
        )
    return patch, stride


def _covers(side: int, patch: int, stride: int) -> np.ndarray:
    """Which pixels of a side each patch covers, (patches, side), bool."""
    starts = np.unique([*range(0, side - patch + 1, stride), side - patch])[:, None]
    pixels = np.arange(side)
    return (starts <= pixels) & (pixels < starts + patch)


def _covering(images: ImageSet, fill: str, device: str) -> Tensor:
    """Pixel that covers, (C, 1, 1), in [0, 1]."""
    pixels = images.images
    mean = sum(
        pixels[part].sum(axis=(0, 2, 3), dtype=np.float64) for part in blocks(len(images), _ROWS)
    ) / (255 * len(images) * np.prod(pixels.shape[2:]))
    pixel = mean if fill == "mean" else np.zeros_like(mean)
    return torch.tensor(pixel, dtype=torch.float32, device=device).view(-1, 1, 1)


def _maps(
    embed: Callable[[Tensor], Tensor],
    images: ImageSet,
    dimensions: np.ndarray,
    rows: np.ndarray,
    covers: tuple[np.ndarray, np.ndarray],
    covering: Tensor,
    batch_size: int,
    mapped: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Occlusion and gradient maps, (d, n, H, W) each; an image is covered once for all of d."""
    occlusion = np.empty((*rows.shape, *images.images.shape[2:]), dtype=np.float32)
    gradient, n_done = np.empty_like(occlusion), 0
    for row in np.unique(rows):
        places, ranks = np.nonzero(rows == row)
        image = pixels_of(images, slice(row, row + 1), str(covering.device))
        read = dimensions[places]
        falls = _falls(embed, image, read, covers, covering, batch_size)
        occlusion[places, ranks] = _mean_over_patches(falls, covers)
        gradient[places, ranks] = _gradients(embed, image, read, batch_size)
        n_done += len(places)
        mapped(n_done)
    return occlusion, gradient


def _falls(
    embed: Callable[[Tensor], Tensor],
    image: Tensor,
    dimensions: np.ndarray,
    covers: tuple[np.ndarray, np.ndarray],
    covering: Tensor,
    batch_size: int,
) -> np.ndarray:
    """Activation of an image less that of its covered copies, (k, patches down, patches across)."""
    rows, columns = (torch.from_numpy(each).to(image.device) for each in covers)
    n_patches = len(rows) * len(columns)
    falls = np.empty((len(dimensions), n_patches))
    for start in range(0, n_patches, batch_size):
        stop = min(start + batch_size, n_patches)
        y, x = np.divmod(np.arange(start, stop), len(columns))
        covered = rows[y][:, None, :, None] & columns[x][:, None, None, :]
        with torch.inference_mode():
            # the image goes along in every batch: another batch size would round it differently,
            # and a place without effect would seem to have one
            batch = torch.cat([image, torch.where(covered, covering, image)])
            features = embed(batch)[:, dimensions].double().cpu().numpy()
        falls[:, start:stop] = (features[0] - features[1:]).T
    return falls.reshape(len(dimensions), len(rows), len(columns))


def _mean_over_patches(falls: np.ndarray, covers: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """For each pixel the mean over the patches that cover it, (k, H, W)."""
    rows, columns = (each.astype(np.float64) for each in covers)
    n_covering = np.outer(rows.sum(axis=0), columns.sum(axis=0))
    return rows.T @ falls @ columns / n_covering


def _gradients(
    embed: Callable[[Tensor], Tensor], image: Tensor, dimensions: np.ndarray, batch_size: int
) -> np.ndarray:
    """Absolute derivatives by the pixels, summed over channels, (k, H, W)."""
    found = []
    for start in range(0, len(dimensions), batch_size):
        asked = torch.from_numpy(dimensions[start : start + batch_size]).to(image.device)
        with torch.enable_grad():
            # one copy a dimension: in evaluation mode the copies know nothing of each other
            batch = image.repeat(len(asked), 1, 1, 1).requires_grad_()
            (slopes,) = torch.autograd.grad(embed(batch).gather(1, asked[:, None]).sum(), batch)
        found.append(slopes.abs().sum(dim=1).cpu().numpy())
    return np.concatenate(found)


def _agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of maps (d, n, H, W), (d, n); NaN where either does not vary."""
    from scipy.stats import rankdata

    ranks = [rankdata(each.reshape(*each.shape[:2], -1), axis=-1) for each in (first, second)]
    centred = [each - each.mean(axis=-1, keepdims=True) for each in ranks]
    products = (centred[0] * centred[1]).sum(axis=-1)
    sizes = np.sqrt(np.square(centred[0]).sum(axis=-1) * np.square(centred[1]).sum(axis=-1))
    return np.divide(products, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
