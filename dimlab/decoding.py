"""Image files as pixels: opened by Pillow when they are asked for, here or in worker processes."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.io.files import DAMAGED, reason_of
from dimlab.refusals import Damaged, Refusal

if TYPE_CHECKING:
    from dimlab.images import ImageFiles, Recipe

# whatever a file is called: Pillow would run Ghostscript for one that begins as PostScript does
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "AVIF", "HEIF")
_PLUGINS = {"AVIF": "pillow-avif-plugin", "HEIF": "pillow-heif"}
SUFFIXES = {
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    *(".avif", ".heic", ".heif"),
}
SKIP = "Pass skip_bad=True (--skip-bad) to leave out images that cannot be read."
FEW = 512  # images, up to which no worker is worth its start
_MOST_WORKERS = 8

# Of some rows, the pixels (B, C, H, W) and why places among them could not be read
Batch = tuple[np.ndarray, Any, dict[int, str]]


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are opened: Pillow's, and those of its plugins that are installed."""
    from PIL import Image

    with suppress(ImportError):
        importlib.import_module("pillow_avif")
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(each for each in _FORMATS if each in Image.OPEN)


def decode(content: Any, name: str, recipe: Recipe) -> np.ndarray:
    """Return the pixels (3, H, W) of a path, bytes, Pillow image or array, as a recipe says."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about metadata and palettes
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _opened(content) as image:
                if image.mode[0] in "IF":  # conversion to RGB would cut off everything above 255
                    raise Refusal(f"mode {image.mode}")
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return recipe.apply(upright).transpose(2, 0, 1)
        except FileNotFoundError as error:
            raise Refusal(f"{name} must be an existing image file; got no such file.") from error
        except (*DAMAGED, Image.DecompressionBombError) as error:
            raise Refusal(
                f"{name} must be a whole image of 8 bits a channel; got a file that cannot be read "
                f"as one ({reason_of(error)})."
            ) from error


def _opened(content: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    if isinstance(content, Image.Image):
        return content.copy()
    content = os.fspath(content) if isinstance(content, os.PathLike) else content
    if not isinstance(content, (str, bytes)):
        pixels = np.asarray(content)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise Refusal(
                f"{pixels.dtype} of shape {pixels.shape}, no image of uint8. Pass a loader of such "
                "tensors to encode_loader"
            )
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
            pixels = pixels.transpose(1, 2, 0)
        return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    where = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        return Image.open(where, formats=_formats())
    except UnidentifiedImageError:
        kind = _of_plugin(content)
        if kind is None or kind in _formats():
            raise
        raise Refusal(f"{kind} needs Pillow's plugin: pip install {_PLUGINS[kind]}") from None


def _of_plugin(content: str | bytes) -> str | None:
    """Name the format of a file that begins as those of Pillow's plugins do, whatever its name."""
    head = content[:12] if isinstance(content, bytes) else b""
    if isinstance(content, str):
        with open(content, "rb") as file:
            head = file.read(12)
    if head[4:8] != b"ftyp":
        return None
    return {b"avif": "AVIF", b"avis": "AVIF"}.get(head[8:], "HEIF")


class _Batches:
    """A map-style data set whose items are batches of rows, for torch's DataLoader."""

    def __init__(
        self, files: ImageFiles, rows_at: Callable[[int], np.ndarray], replace_bad: bool
    ) -> None:
        self.files, self.rows_at, self.replace_bad = files, rows_at, replace_bad

    def __getitem__(self, number: int) -> Batch:
        """Decode a batch; what cannot be read is told, not raised: a worker would add its trace."""
        import torch

        rows = self.rows_at(number).copy()
        pixels = np.zeros((len(rows), *self.files.shape[1:]), self.files.dtype)
        faults: dict[int, str] = {}
        for place, row in enumerate(rows.tolist()):
            others = range(row, row + len(self.files) if self.replace_bad else row + 1)
            for other in others:
                rows[place] = other % len(self.files)
                try:
                    pixels[place] = self.files.read(rows[place])
                    break
                except Refusal as error:
                    faults.setdefault(place, str(error))
        return rows, torch.from_numpy(pixels), faults


class Slices:
    """Rows start to stop in batches of one size; picklable, for processes that are not forked."""

    def __init__(self, start: int, stop: int, size: int) -> None:
        self.start, self.stop, self.size = start, stop, size

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.size)

    def __call__(self, number: int) -> np.ndarray:
        """Return the rows of a batch."""
        first = self.start + number * self.size
        return np.arange(first, min(first + self.size, self.stop))


def batches(
    images: np.ndarray | ImageFiles,
    rows_at: Callable[[int], np.ndarray],
    numbers: Sequence[int],
    *,
    replace_bad: bool = False,
) -> Iterator[Batch]:
    """Yield batches of images in order; files are decoded ahead by worker processes.

    With ``replace_bad`` the next image that can be read stands in for one that cannot.
    """
    import torch

    if isinstance(images, np.ndarray):
        for number in numbers:
            rows = rows_at(number)
            yield rows, torch.from_numpy(np.array(images[rows])), {}
        return
    from torch.utils.data import DataLoader

    source: Any = _Batches(images, rows_at, replace_bad)
    loader: Any = DataLoader(
        source,
        batch_size=None, collate_fn=_as_it_is, sampler=numbers, num_workers=_n_workers(images),
        generator=torch.Generator(),  # the global one is left alone
    )  # fmt: skip
    for rows, pixels, faults in loader:
        if faults and not images.skip_bad:
            raise Damaged(f"{next(iter(faults.values()))} {SKIP}")
        yield rows, pixels, faults


def say_left_out(images: np.ndarray | ImageFiles, left_out: np.ndarray) -> None:
    """Count the rows that no process and no earlier call could read, and say why of the first."""
    if len(left_out) == 0:
        return
    why = f"The first is image {left_out[0]}."
    try:
        images[int(left_out[0])]
    except Refusal as error:
        why = str(error)
    warnings.warn(
        f"{len(left_out)} of {len(images)} images could not be read and were left out. {why}",
        UserWarning,
        stacklevel=4,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _n_workers(files: ImageFiles) -> int:
    if files.workers is not None:
        return files.workers
    if len(files) <= FEW:
        return 0
    affinity = getattr(os, "sched_getaffinity", None)
    return min(_MOST_WORKERS, len(affinity(0)) if affinity else os.cpu_count() or 1)
