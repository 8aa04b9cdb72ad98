"""Why an encoder is not loaded: what is missing, of another shape, not finite or never trained."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dimlab.interop.layouts import OPTIONAL
from dimlab.interop.matching import Match
from dimlab.interop.opening import Opened
from dimlab.interop.roles import role_of


def refusal(
    name: str,
    opened: Opened,
    match: Match,
    *,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
) -> str | None:
    """Say why an encoder cannot be loaded from a file.

    Parameters
    ----------
    name : str
        Of the file.
    opened : Opened
        Its tensors.
    match : Match
        Where the encoder lies.
    allow_partial : sequence of str
        Keys of the encoder, or what they begin with, that need not fit.
    allow_untrained : bool, default=False
        Whether weights may show no sign of training.

    Returns
    -------
    str or None
        A sentence; None where it can be loaded.
    """
    lacks = _lacking(match, allow_partial)
    if lacks:
        return _of_keys(name, opened, match, lacks)
    weights = {key: opened.tensors[each] for key, each in match.candidate.found.items()}
    for key, each in weights.items():
        if each.is_floating_point() and not bool(torch.isfinite(each).all()):
            where = match.candidate.found[key]
            return f"{name} must hold finite weights; got NaN or inf in {where}."
    state = trained(weights)
    if state in ("no", "in part") and not allow_untrained:
        which = "" if state == "no" else "some "
        return (
            f"{name} must hold trained weights; got {which}normalisation layers that no image "
            "has moved. Pass allow_untrained=True (--allow-untrained) to take them all the same."
        )
    return None


def _of_keys(name: str, opened: Opened, match: Match, lacks: Sequence[str]) -> str:
    place, key = match.candidate, lacks[0]
    n_wanted = len(place.found) + len(place.missing) + len(place.mismatched)
    if key in place.mismatched:
        there = place.mismatched[key]
        shape = tuple(opened.tensors[there].shape)
        wanted = match.blueprint.shapes()[key]
        what = f"{there} of shape {shape} instead of {wanted}"
    elif key in place.missing:
        inside = [each for each in opened.tensors if each.startswith(place.prefix)]
        free = [each for each in inside if each not in place.found.values()]
        close = difflib.get_close_matches(f"{place.prefix}{key}", free or inside, 1, 0.5)
        what = f"none for {key}" + (f" (closest: {close[0]})" if close else "")
    else:
        what = f"{place.prefix}{key}, which {match.blueprint.name} has no place for"
    return (
        f"{name} must hold every weight of {match.blueprint.name}; got {len(place.found)} of "
        f"{n_wanted} under {place.prefix!r}, {len(lacks)} do not fit: {what}. Name another "
        f"--encoder, --stem, --layout or --branch, or pass --allow-partial {key}."
    )


def _lacking(match: Match, allowed: Sequence[str]) -> list[str]:
    """Keys that an encoder misses, or the file has beyond it, and that are not allowed to."""
    place = match.candidate
    beyond = [name.removeprefix(place.prefix) for name in place.unexpected
              if role_of(name) == "other" and not name.endswith(OPTIONAL)]  # fmt: skip
    return [
        key
        for key in [*place.missing, *place.mismatched, *beyond]
        if not any(key == each or key.startswith(f"{each.rstrip('.')}.") for each in allowed)
    ]


def trained(weights: Mapping[str, Tensor]) -> str:
    """Say whether weights were ever trained, by their normalisation layers.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of an encoder, of any shapes.

    Returns
    -------
    str
        ``yes``; ``no``: every running mean is 0 and variance 1, or, without BatchNorm, every
        normalisation has weight 1 and bias 0; ``in part``: some running means and variances are 0
        and 1; ``unknown``: there is no normalisation.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.BatchNorm1d(2)
    >>> trained(layer.state_dict())
    'no'
    >>> _ = layer(torch.eye(2))
    >>> trained(layer.state_dict()), trained({"weight": torch.ones(2)})
    ('yes', 'unknown')
    """
    layers = [key.removesuffix("running_mean") for key in weights if key.endswith("running_mean")]
    if layers:
        moved = [_moved(weights, layer) for layer in layers]
        return "yes" if all(moved) else "in part" if any(moved) else "no"
    lines = [key for key, each in weights.items() if key.endswith(".weight") and each.ndim == 1]
    norms = [key.removesuffix("weight") for key in lines]
    norms = [name for name in norms if f"{name}bias" in weights]
    if not norms:
        return "unknown"
    fresh = all(
        bool((weights[f"{name}weight"] == 1).all()) and not bool(weights[f"{name}bias"].any())
        for name in norms
    )
    return "no" if fresh else "yes"


def _moved(weights: Mapping[str, Tensor], layer: str) -> bool:
    """Whether a BatchNorm has seen an image in training."""
    mean, variance = weights[f"{layer}running_mean"], weights.get(f"{layer}running_var")
    count = weights.get(f"{layer}{OPTIONAL}")
    return (
        bool(mean.any())
        or (variance is not None and bool((variance != 1).any()))
        or (count is not None and bool(count.any()))
    )
