"""Images of the user's own in one ``.npz`` file."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from dimlab.columns import factor_of
from dimlab.datasets.splits import checked_parts, official_part, part_of, resized
from dimlab.images import ImageSet
from dimlab.io.files import Misnamed, naming, read_npz
from dimlab.refusals import Refusal


def npz(
    split: str, *, data_dir: str | os.PathLike[str] | None, image_size: int | None = None
) -> ImageSet:
    """Images of your own in one ``.npz`` file, with any factors.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        The file. It holds ``images`` (N, H, W), (N, H, W, C) or (N, C, H, W) uint8; ``labels``
        (N,); perhaps ``split`` (N,) of "train", "validation", "test", and ``class_names`` (K,).
        Every other array, of shape (N,), is a factor; a scalar ``period_hue``: ``hue`` wraps.
    image_size : int, optional
        Height and width in pixels; None leaves what is there.

    Returns
    -------
    ImageSet
        With the factors.

    Raises
    ------
    TypeError
        If the images are not uint8, the labels not integers, or a factor of another type.
    ValueError
        If the split is unknown or empty, image_size < 1, data_dir is missing, the file is damaged
        or needs pickle, or an array is missing or of the wrong shape.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile
    >>> arrays = {"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, 1, 1])}
    >>> arrays |= {"split": np.array(["train", "test", "test"]), "hue": np.array([0.1, 0.2, 0.3])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "own.npz", **arrays, period_hue=1.0)
    ...     images = npz("test", data_dir=Path(folder) / "own.npz")
    >>> images.images.shape, images.factors["hue"].tolist(), images.periods
    ((2, 1, 8, 8), [0.2, 0.3], {'hue': 1.0})
    """
    official_part(split)
    if data_dir is None:
        raise Misnamed("npz needs data_dir: pass an .npz file with images and labels.")
    path = Path(data_dir).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(
            f"data_dir must be an .npz file; got {str(path)!r}, which is not there."
        )
    arrays = dict(_npz_arrays(path, path.stat().st_mtime_ns))
    with naming(path):
        return resized(_npz_split(arrays, split, str(path)), image_size)


def _npz_split(arrays: dict[str, np.ndarray], split: str, folder: str) -> ImageSet:
    parts = arrays.pop("split", None)
    class_names = arrays.pop("class_names", np.array([])).ravel().tolist()
    periods = {name: arrays.pop(name) for name in list(arrays) if name.startswith("period_")}
    scalars = {name.removeprefix("period_"): period for name, period in periods.items()}
    for name, period in scalars.items():
        if period.shape != () or period.dtype.kind not in "fiu":
            raise Refusal(f"period_{name} must be one number; got shape {period.shape}.")
    whole = ImageSet(
        _channels_first(arrays.pop("images")),
        arrays.pop("labels"),
        factors={name: factor_of(each, name) for name, each in arrays.items()},
        periods={name: float(period) for name, period in scalars.items()},
        name="npz",
        split=split,
        folder=folder,
        class_names=class_names,
    )
    if parts is not None:
        parts = checked_parts(parts, len(whole))
    return part_of(whole, split, parts)


@lru_cache(maxsize=1)  # a command asks for several splits of one file
def _npz_arrays(path: Path, _changed: int) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise Refusal(f"{path} must hold images and labels; got no {' and no '.join(missing)}.")
    return arrays


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        if images.shape[1] in (1, 3):
            raise Refusal(
                "images must have their channels in one place, (N, H, W, C) or (N, C, H, W); "
                f"got {images.shape}, which can be read either way."
            )
        return images.transpose(0, 3, 1, 2)
    return images
