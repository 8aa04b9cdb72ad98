"""Images are encoded with another tool's encoder, which knows little of how it was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.io.weights import LoadedEncoder
    from dimlab.representation import Representation


def encode_with(
    loaded: LoadedEncoder,
    images: ImageSet,
    *,
    views: int = 0,
    normalisation: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> Representation:
    """Encode images with another tool's encoder.

    Parameters
    ----------
    loaded : LoadedEncoder
        From `load_encoder`.
    images : ImageSet
        N images; grey ones are given to three channels alike.
    views : int, default=0
        Augmented views.
    normalisation : {"none", "imagenet"}, optional
        As in `encode`.
    seed : int, default=0
        Of the views.
    device : str, default="cpu"
        Where to encode.
    quiet : bool, default=False
        No progress.

    Returns
    -------
    Representation
        Unmasked; ``meta`` says which file, layout and prefix.
    """
    from dimlab.encode import encode
    from dimlab.terminal import progress

    channels = _channels(loaded)
    if channels == 3 and images.images.shape[1] == 1:
        images = replace(images, images=np.repeat(images.images, 3, axis=1))
    if images.images.shape[1] != channels:
        raise ValueError(
            f"data must have images of {channels} channels, as the encoder has; got "
            f"{images.images.shape[1]}."
        )
    with progress(f"encoding {images.split or images.name}", quiet=quiet) as advance:
        return encode(
            loaded, images, n_views=views, seed=seed, device=device, normalisation=normalisation,
            progress=advance,
        )  # fmt: skip


def normalisation_note(loaded: LoadedEncoder, source: Path, chosen: str | None) -> str | None:
    """Say that nobody said how an encoder's pixels are normalised, where nobody did.

    Parameters
    ----------
    loaded : LoadedEncoder
        From `load_encoder`.
    source : Path
        As it was named.
    chosen : str or None
        What the user chose.

    Returns
    -------
    str or None
        One line; None where it is recorded or chosen, and for an encoder of other than three
        channels, which ImageNet has no normalisation for.
    """
    known = chosen is not None or loaded.inspection.facts.get("normalisation") is not None
    if known or _channels(loaded) != 3:
        return None
    return (
        f"note: {source.name} does not record how pixels were normalised; they go in as they are, "
        "from 0 to 1 (none). For weights trained on ImageNet's normalised pixels: dimlab encode "
        f"{source} --normalisation imagenet."
    )


def _channels(loaded: LoadedEncoder) -> int:
    return next(each.shape[1] for each in loaded.module.parameters() if each.ndim == 4)
