"""Why an encoder is not loaded: keys that do not fit, numbers that are none, nothing trained."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dimlab.io.files import Misnamed
from dimlab.io.folders import FolderTower
from dimlab.io.layouts import OPTIONAL, branch_of, looks_like, remedy_of, unwrapped
from dimlab.io.places import Match
from dimlab.io.unpickle import Opened, fault_of


def refusal_of_tower(tower: FolderTower, allow_untrained: bool) -> str | None:
    """Say in a sentence why the encoder of a folder cannot be loaded; None where it can be."""
    if tower.lacks is not None:
        return f"{tower.name} {tower.lacks}"
    weights = dict(tower.module.state_dict())
    return _untrained(tower.name, weights, {}, allow_untrained)


def refusal(
    name: str,
    match: Match,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
) -> str | None:
    """Say in a sentence why an encoder cannot be loaded from a file; None where it can be."""
    opened = match.opened
    if match.doubt is not None:
        return f"{name}: {match.doubt}"
    place = match.place
    for each in match.unexpected:
        key = unwrapped(each)[len(place.prefix) :]
        if key in place.found:
            return (
                f"{name} must hold each weight once; got {place.found[key]} and {each}. Leave one "
                "out."
            )
    beyond = [unwrapped(each)[len(place.prefix) :] for each in match.unexpected]
    lacks = [
        key
        for key in [*place.missing, *place.mismatched, *beyond]
        if not any(_allows(each, key) for each in allow_partial)
    ]
    if lacks:
        return _of_keys(name, opened, match, lacks)
    unsound = _unsound(name, opened, match)
    if unsound is not None:
        return unsound
    weights = {key: opened.tensors[each] for key, each in place.found.items()}
    return _untrained(name, weights, place.found, allow_untrained)


def _untrained(
    name: str, weights: Mapping[str, Tensor], names: Mapping[str, str], allow_untrained: bool
) -> str | None:
    """Say that weights show no sign of training, where they show none."""
    state = trained(weights)
    if allow_untrained or state not in ("no", "in part"):
        return None
    empty = _empty(weights)
    got = f"{'' if state == 'no' else 'some '}normalisation layers that no image has moved"
    if empty:
        got = f"only zeros in {names.get(empty[0], empty[0])}"
    return (
        f"{name} must hold trained weights; got {got}. Pass allow_untrained=True "
        "(--allow-untrained) to take them all the same."
    )


def check_partial(match: Match, allow_partial: Sequence[str]) -> None:
    """Refuse to allow a key that neither the encoder has nor the file beside it."""
    prefix = match.place.prefix
    inside = [name for name in map(unwrapped, match.opened.tensors) if name.startswith(prefix)]
    known = [*match.blueprint.shapes(), *(name[len(prefix) :] for name in inside)]
    for each in allow_partial:
        if not any(_allows(each, key) for key in known):
            raise Misnamed(
                f"allow_partial must name keys of {match.blueprint.name}, or what they begin with; "
                f"got {each!r} (--allow-partial)."
            )


def _allows(allowed: str, key: str) -> bool:
    return key == allowed or key.startswith(f"{allowed.rstrip('.')}.")


def _of_keys(name: str, opened: Opened, match: Match, lacks: Sequence[str]) -> str:
    """Say which keys are missing, of another shape, or without a place, and what to do."""
    place, first = match.place, _first(opened, match, lacks[0])
    family = looks_like({unwrapped(k): tuple(v.shape) for k, v in opened.tensors.items()})
    if family is not None:
        return (
            f"{name} must hold an encoder that dimlab builds; got what looks like {family}, and "
            f"not all of {match.blueprint.name}: {first}. {remedy_of(family)}"
        )
    counts = {
        "missing": len(place.missing),
        "of another shape": len(place.mismatched),
        "without a place in it": len(match.unexpected),
    }
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    other = ""
    if match.whole is not None:
        branch, prefix = branch_of(match.whole), match.whole.strip(".")
        chosen = branch if branch != place.branch else prefix
        other = (
            f" The copy under {prefix!r} is whole: branch={chosen!r} (--branch {chosen}) loads it."
        )
    heads = _heads(opened, match)
    remedy = (
        f"If heads behind the encoder are {', '.join(heads)}, pass "
        f"{' '.join(f'--allow-partial {each}' for each in heads)}."
        if heads
        else "Name another --encoder, as timm:NAME, --stem, --layout or --branch."
    )
    return (
        f"{name} must hold every weight of {match.blueprint.name}; got {len(place.found)} of "
        f"{place.n_wanted} under {place.prefix!r}, {listed}: {first}.{other} {remedy}"
    )


def _heads(opened: Opened, match: Match) -> list[str]:
    """Names of linear layers of the features, where nothing else stands beside a whole encoder."""
    place, tensors = match.place, opened.tensors
    sizes = [each[0] for each in match.blueprint.shapes().values() if len(each) == 1]
    start, width = len(place.prefix), max(sizes, default=0)
    names = {unwrapped(each)[start:]: tensors[each] for each in match.unexpected}
    parts = sorted({each.split(".")[0] for each in names})
    kernels = [names.pop(f"{each}.weight", None) for each in parts]
    are_linear = all(each is not None and each.shape[1:] == (width,) for each in kernels)
    rest = set(names) - {f"{each}.bias" for each in parts}
    return parts if place.is_whole and are_linear and not rest else []


def _first(opened: Opened, match: Match, key: str) -> str:
    """Say what is wrong with a key."""
    place = match.place
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


def _unsound(name: str, opened: Opened, match: Match) -> str | None:
    """Say which tensor holds no numbers that an encoder could compute with."""
    for key, where in match.place.found.items():
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


def trained(weights: Mapping[str, Tensor]) -> str:
    """Say whether weights were ever trained: ``yes``, ``no``, ``in part`` or ``unknown``."""
    # Not where a BatchNorm's running mean is 0 and its variance 1 (or 0), whatever the count of
    # batches says; without BatchNorm, where every normalisation has weight 1 and bias 0; or where a
    # convolution or matrix is 0.
    weights = {key: each for key, each in weights.items() if fault_of(each) is None}
    empty = _empty(weights)
    if empty:
        return "no" if len(empty) == len(_kernels(weights)) else "in part"
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
    if variance is None:
        return bool(mean.any())
    return bool(variance.any()) and bool(mean.any() or (variance != 1).any())


def _kernels(weights: Mapping[str, Tensor]) -> list[str]:
    return [key for key, each in weights.items() if key.endswith("weight") and each.ndim > 1]


def _empty(weights: Mapping[str, Tensor]) -> list[str]:
    """Keys of convolutions and matrices that are all zeros."""
    return [key for key in _kernels(weights) if not bool(weights[key].any())]
