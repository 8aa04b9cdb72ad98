"""Why an encoder is not loaded: what is missing, of another shape, not finite or never trained."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dimlab.containers import Misnamed
from dimlab.interop.foreign import REMEDY, looks_like
from dimlab.interop.layouts import OPTIONAL, branch_of, unwrapped
from dimlab.interop.matching import Match
from dimlab.interop.opening import Opened, fault_of


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
    if match.doubt is not None:
        return f"{name}: {match.doubt}"
    place = match.candidate
    twin = next(
        (each for each in match.unexpected if unwrapped(each)[len(place.prefix) :] in place.found),
        None,
    )
    if twin is not None:
        other = place.found[unwrapped(twin)[len(place.prefix) :]]
        return f"{name} must hold each weight once; got {other} and {twin}. Leave one out."
    lacks = _lacking(match, allow_partial)
    if lacks:
        return _of_keys(name, opened, match, lacks)
    unsound = _unsound(name, opened, match)
    if unsound is not None:
        return unsound
    weights = {key: opened.tensors[each] for key, each in match.candidate.found.items()}
    if trained(weights) in ("no", "in part") and not allow_untrained:
        empty = _empty(weights)
        some = "" if trained(weights) == "no" else "some "
        got = f"{some}normalisation layers that no image has moved"
        if empty:
            got = f"only zeros in {match.candidate.found[empty[0]]}"
        return (
            f"{name} must hold trained weights; got {got}. Pass allow_untrained=True "
            "(--allow-untrained) to take them all the same."
        )
    return None


def check_partial(match: Match, opened: Opened, allow_partial: Sequence[str]) -> None:
    """Refuse to allow what an encoder does not have.

    Parameters
    ----------
    match : Match
        Where the encoder lies.
    opened : Opened
        The file.
    allow_partial : sequence of str
        As in `refusal`.

    Raises
    ------
    Misnamed
        If one is, or begins, no key of the encoder nor of the file beside it.
    """
    inside = [name for name in map(unwrapped, opened.tensors)
              if name.startswith(match.candidate.prefix)]  # fmt: skip
    known = [*match.blueprint.shapes(), *(n[len(match.candidate.prefix) :] for n in inside)]
    for each in allow_partial:
        if not any(_allows(each, key) for key in known):
            raise Misnamed(
                f"allow_partial must name keys of {match.blueprint.name}, or what they begin with; "
                f"got {each!r} (--allow-partial)."
            )


def _allows(allowed: str, key: str) -> bool:
    return key == allowed or key.startswith(f"{allowed.rstrip('.')}.")


def _unsound(name: str, opened: Opened, match: Match) -> str | None:
    """Say which tensor holds no numbers that an encoder could compute with."""
    for key, where in match.candidate.found.items():
        tensor, counts = opened.tensors[where], key.endswith(OPTIONAL)
        fault = fault_of(tensor, counts=counts)
        if fault is not None:
            return (
                f"{name} must hold dense weights of 16, 32 or 64 bit floating point; got {fault} "
                f"in {where}. Save them from the module that was trained, as floating point."
            )
        if not bool(torch.isfinite(tensor).all()):
            return f"{name} must hold finite weights; got NaN or inf in {where}."
        if not counts and not bool(torch.isfinite(tensor.float()).all()):
            return f"{name} must hold weights within float32; got larger ones in {where}."
        if key.endswith("running_var") and bool((tensor < 0).any()):
            return f"{name} must hold running variances >= 0; got a negative one in {where}."
    return None


def _of_keys(name: str, opened: Opened, match: Match, lacks: Sequence[str]) -> str:
    family = looks_like({unwrapped(k): tuple(v.shape) for k, v in opened.tensors.items()})
    if family is not None:
        return (
            f"{name} must hold an encoder that dimlab builds; got what looks like {family}, and "
            f"not all of {match.blueprint.name}: {_first(opened, match, lacks[0])}. {REMEDY}"
        )
    place = match.candidate
    counts = {
        "missing": len(place.missing),
        "of another shape": len(place.mismatched),
        "without a place in it": len(match.unexpected),
    }
    n_wanted = len(place.found) + len(place.missing) + len(place.mismatched)
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    other = ""
    if match.whole is not None:
        branch, prefix = branch_of(match.whole), match.whole.strip(".")
        chosen = branch if branch != place.branch else prefix
        other = (
            f" The copy under {prefix!r} is whole: branch={chosen!r} (--branch {chosen}) loads it."
        )
    return (
        f"{name} must hold every weight of {match.blueprint.name}; got {len(place.found)} of "
        f"{n_wanted} under {place.prefix!r}, {listed}: {_first(opened, match, lacks[0])}.{other} "
        "Name another --encoder, --stem, --layout or --branch, or pass --allow-partial "
        f"{lacks[0]}."
    )


def _first(opened: Opened, match: Match, key: str) -> str:
    """Say what is wrong with a key."""
    place = match.candidate
    if key in place.mismatched:
        there = place.mismatched[key]
        shape = tuple(opened.tensors[there].shape)
        return f"{there} of shape {shape} instead of {match.blueprint.shapes()[key]}"
    if key in place.missing:
        inside = [each for each in opened.tensors if each.startswith(place.prefix)]
        free = [each for each in inside if each not in place.found.values()]
        close = difflib.get_close_matches(f"{place.prefix}{key}", free or inside, 1, 0.5)
        return f"none for {key}" + (f" (closest: {close[0]})" if close else "")
    return f"{place.prefix}{key}, which {match.blueprint.name} has no place for"


def _lacking(match: Match, allowed: Sequence[str]) -> list[str]:
    """Keys that an encoder misses, or the file has beyond it, and that are not allowed to."""
    place = match.candidate
    beyond = [unwrapped(name)[len(place.prefix) :] for name in match.unexpected]
    return [
        key
        for key in [*place.missing, *place.mismatched, *beyond]
        if not any(_allows(each, key) for each in allowed)
    ]


def trained(weights: Mapping[str, Tensor]) -> str:
    """Say whether weights were ever trained, by their normalisation layers and by zeros.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of an encoder, of any shapes.

    Returns
    -------
    str
        ``yes``; ``no``: every running mean is 0 and variance 1, whatever the count of batches says,
        or every variance 0; or, without BatchNorm, every normalisation has weight 1 and bias 0; or
        every convolution and matrix is 0; ``in part``: this holds for some of them; ``unknown``:
        there is no normalisation.

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
    weights = {key: each for key, each in weights.items() if fault_of(each) is None}
    layers = [key.removesuffix("running_mean") for key in weights if key.endswith("running_mean")]
    empty = _empty(weights)
    if empty:
        return "no" if len(empty) == len(_kernels(weights)) else "in part"
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
    if variance is None:
        return bool(mean.any())
    return bool(variance.any()) and bool(mean.any() or (variance != 1).any())


def _kernels(weights: Mapping[str, Tensor]) -> list[str]:
    return [key for key, each in weights.items() if key.endswith("weight") and each.ndim > 1]


def _empty(weights: Mapping[str, Tensor]) -> list[str]:
    """Keys of convolutions and matrices that are all zeros."""
    return [key for key in _kernels(weights) if not bool(weights[key].any())]
