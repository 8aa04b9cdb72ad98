"""Which encoder a file holds, and under which prefix: by coverage of keys with equal shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from dimlab.interop.families import (
    NEEDS_TIMM,
    TIMM,
    Blueprint,
    blueprint_at,
    has_timm,
    normalised_name,
    vit_at,
    vit_prefixes,
)
from dimlab.interop.layouts import (
    BRANCHES,
    LAYOUTS,
    OPTIONAL,
    RULE,
    SPELLINGS,
    Candidate,
    Layout,
    Shape,
    candidates,
    layout_of,
    narrowed,
    placed,
    split_prefix,
)
from dimlab.interop.layouts import NAMES as LAYOUT_NAMES
from dimlab.interop.opening import Opened
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import NAMES

_RIVAL = 0.5  # a copy of the encoder has at least this share of its keys
Pair = tuple[Blueprint, Candidate]


@dataclass(frozen=True, eq=False)
class Match:
    """Where the encoder lies, and why there.

    Parameters
    ----------
    blueprint : Blueprint
        The encoder.
    candidate : Candidate
        Its place.
    layout : Layout
        Of the file.
    container, prefix : str
        The place in two parts.
    why : str
        Why this place, in sentences.
    aliases : dict of str to str
        Other keys of the file with equal tensors, and the encoder's keys.
    copies : tuple of str
        Prefixes of other copies, which were not taken.
    """

    blueprint: Blueprint
    candidate: Candidate
    layout: Layout
    container: str
    prefix: str
    why: str
    aliases: dict[str, str] = field(default_factory=dict)
    copies: tuple[str, ...] = ()


def find_encoder(
    opened: Opened,
    *,
    encoder: str | None = None,
    stem: str | None = None,
    layout: str | None = None,
    branch: str | None = None,
) -> Match:
    """Find the encoder in a file.

    Parameters
    ----------
    opened : Opened
        The file.
    encoder, stem, layout, branch : str or None
        What a person knows of it; None: told by the shapes.

    Returns
    -------
    Match
        The best place. It need not be whole.

    Raises
    ------
    ValueError
        If a name is unknown, no key of any encoder is there, the encoder or its copy is not plain,
        or the encoder needs timm.
    """
    check_names(encoder, stem, layout)
    shapes = {key: tuple(each.shape) for key, each in opened.tensors.items()}
    name = None if encoder is None else normalised_name(encoder)
    if name is None:
        _check_vit(shapes)
    pairs = list(_pairs(opened, shapes, name, stem))
    if not pairs:
        first = ", ".join(list(shapes)[:3]) or "no tensor"
        raise ValueError(
            f"checkpoint must hold {name or 'an encoder that dimlab knows'}; got {len(shapes)} "
            f"tensors without a key of it: {first}."
        )
    pairs.sort(key=lambda pair: -pair[1].score)
    places = [candidate for _, candidate in pairs]
    marks = opened.marks
    kept = {id(each) for each in narrowed(places, branch, layout, opened.containers, marks)}
    asked = [pair for pair in pairs if id(pair[1]) in kept]
    chosen, equals = _choose(asked, lambda a, b: _same(opened, a, b))
    return _match(opened, chosen, equals, pairs, branch)


def check_names(encoder: str | None, stem: str | None, layout: str | None) -> None:
    """Refuse names that fit no file.

    Parameters
    ----------
    encoder, stem, layout : str or None
        As in `find_encoder`.

    Raises
    ------
    ValueError
        If one is unknown.
    """
    if encoder is not None:
        normalised_name(encoder)
    if stem not in (None, "cifar", "imagenet"):
        raise ValueError(f"stem must be 'cifar' or 'imagenet'; got {stem!r}.")
    if layout is not None and layout not in LAYOUT_NAMES:
        raise ValueError(f"layout must be one of {', '.join(LAYOUT_NAMES)}; got {layout!r}.")


def _check_vit(shapes: dict[str, Shape]) -> None:
    if vit_prefixes(shapes) and not has_timm():
        blueprint = vit_at(vit_prefixes(shapes)[0], shapes)
        raise ValueError(
            f"checkpoint holds a vision transformer ({blueprint.name}), which {NEEDS_TIMM}."
        )


def _pairs(
    opened: Opened, shapes: dict[str, Shape], name: str | None, stem: str | None
) -> Iterator[Pair]:
    """Every encoder at every place that has a key of it."""
    own = _own(opened) if name is None else None
    if own is not None:
        yield from ((own, each) for each in candidates(shapes, own.shapes(), ["names"]))
        return
    if name is None:
        for prefix in vit_prefixes(shapes):
            vit = vit_at(prefix, shapes)
            found = candidates(shapes, vit.shapes(), ["names"])
            yield from (
                (vit, each) for each in found if each.prefix == prefix.replace("_orig_mod.", "")
            )
    for each in NAMES if name is None else (name,):
        if each.startswith(TIMM):
            yield from _timm_pairs(each, shapes)
            continue
        for rough in candidates(shapes, Blueprint(each).shapes()):
            place = rough.found | rough.mismatched
            exact = blueprint_at(each, shapes, place, stem)
            exact = replace(exact, stem_relu=SPELLINGS[rough.spelling].stem_relu)
            yield exact, placed(rough.prefix, rough.spelling, place, shapes, exact.shapes())


def _timm_pairs(name: str, shapes: dict[str, Shape]) -> Iterator[Pair]:
    wanted = Blueprint(name).shapes()
    first = next((key for key, shape in wanted.items() if len(shape) == 4 and min(shape) >= 1), "")
    for rough in candidates(shapes, wanted, ["names"]):
        place = rough.found | rough.mismatched
        at = shapes.get(place.get(first, ""), ())
        exact = Blueprint(name, in_channels=at[1] if len(at) == 4 and at[1] else 3)
        if "pos_embed" in rough.mismatched and "patch_embed.proj.weight" in place:
            exact = replace(exact, image_size=vit_at(rough.prefix, shapes).image_size)
        yield exact, placed(rough.prefix, "names", place, shapes, exact.shapes())


def _own(opened: Opened) -> Blueprint | None:
    """Read the encoder of a dimlab checkpoint off its configuration."""
    try:
        config = TrainConfig.from_dict(json.loads(opened.values["config"]))
        channels = json.loads(opened.values["data"])["shape"][0]
        if type(channels) is not int or channels < 1:
            return None
        own = Blueprint(
            config.encoder,
            channels,
            stem=None if config.encoder == "convnet" else config.stem,
            stem_relu=config.stem_relu,
            width=config.n_dimensions,
        )
        own.shapes()  # refuses what cannot be built
        return own
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _choose(
    pairs: list[Pair], same: Callable[[Candidate, Candidate], bool]
) -> tuple[Pair, list[Candidate]]:
    """Take the first branch, its best place, and its places with equal tensors."""
    best = pairs[0][1].score
    rivals = [pair for pair in pairs if pair[1].score >= min(_RIVAL, best)]
    branches = {each.branch for _, each in rivals}
    first = next(name for name in BRANCHES if name in branches)
    rivals = [pair for pair in rivals if pair[1].branch == first]
    score = rivals[0][1].score
    blueprint, chosen = min(
        (pair for pair in rivals if pair[1].score == score), key=lambda pair: len(pair[1].prefix)
    )
    equals = []
    for other, place in rivals:
        if place.score < score or place is chosen:
            continue
        if place.prefix == chosen.prefix:
            if other.name != blueprint.name:
                raise ValueError(
                    f"encoder must be named, as {blueprint.name} and {other.name} fit equally "
                    f"well; got none. Pass encoder={blueprint.name!r} (--encoder {blueprint.name})."
                )
        elif same(chosen, place):
            equals.append(place)
        else:
            a, b = chosen.prefix.strip("."), place.prefix.strip(".")
            raise ValueError(
                f"branch must say which of two encoders with different weights is meant, {a!r} or "
                f"{b!r}; got none. Pass branch={b!r} (--branch {b})."
            )
    return (blueprint, chosen), equals


def _same(opened: Opened, a: Candidate, b: Candidate) -> bool:
    if a.found.keys() != b.found.keys():
        return False
    return all(_equal(opened, a.found[key], b.found[key]) for key in a.found)


def _equal(opened: Opened, a: str, b: str) -> bool:
    one, other = opened.tensors[a], opened.tensors[b]
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _match(
    opened: Opened, chosen: Pair, equals: list[Candidate], pairs: list[Pair], branch: str | None
) -> Match:
    blueprint, place = chosen
    aliases: dict[str, str] = {}
    copies: list[str] = []
    for other, each in pairs:
        if each is place or each.prefix == place.prefix or other.name != blueprint.name:
            continue
        if each.score < min(_RIVAL, place.score):
            continue
        if each not in equals:
            copies.append(each.prefix)
        for key, name in each.found.items():
            if key.endswith(OPTIONAL) and each not in equals:
                continue  # counts of batches agree without meaning anything
            if key in place.found and name != place.found[key]:
                if _equal(opened, name, place.found[key]):
                    aliases[name] = key
    container, prefix = split_prefix(place.prefix, opened.containers)
    layout = layout_of(place, opened.containers, opened.marks)
    copies = list(dict.fromkeys(copies))
    why = _why(chosen, layout, equals, copies, pairs, branch)
    return Match(blueprint, place, layout, container, prefix, why, aliases, tuple(copies))


def _why(
    chosen: Pair,
    layout: Layout,
    equals: list[Candidate],
    copies: list[str],
    pairs: list[Pair],
    branch: str | None,
) -> str:
    blueprint, place = chosen
    n_found = sum(not key.endswith(OPTIONAL) for key in place.found)
    n_wanted = n_found + len(place.mismatched) + len(place.missing)
    said = [layout.why if layout is not LAYOUTS[-1] or place.prefix else ""]
    under = f"under {place.prefix!r}" if place.prefix else "without a prefix"
    said.append(
        f"{n_found} of {n_wanted} keys of {blueprint.name} stand {under} with equal shapes."
    )
    if place.spelling != "names":
        said.append(f"Spelled as {SPELLINGS[place.spelling].name}.")
    if equals:
        names = ", ".join(repr(each.prefix) for each in equals)
        said.append(f"Equal copies stand under {names}.")
    if copies:
        names = ", ".join(repr(each) for each in copies)
        rule = "as asked for" if branch is not None else f"by the rule: {RULE}"
        said.append(f"The {place.branch} branch was taken, not {names}, {rule}.")
    return " ".join(each for each in said if each)
