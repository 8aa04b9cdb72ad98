"""Which encoder a file holds, and under which prefix: by coverage of keys with equal shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from dimlab.interop.families import (
    NEEDS_TIMM,
    TIMM,
    Blueprint,
    blueprint_at,
    check_timm,
    has_timm,
    normalised_name,
    vit_at,
    vit_prefixes,
)
from dimlab.interop.foreign import REMEDY, looks_like
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
    unwrapped,
)
from dimlab.interop.layouts import NAMES as LAYOUT_NAMES
from dimlab.interop.opening import Opened, fault_of
from dimlab.interop.roles import is_known_beside
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import BUILT, STEMS

_RIVAL = 0.5  # a copy of the encoder has at least this share of its keys
_FEWEST = 0.25  # share of an encoder's keys without which a file is not said to hold it
_SOLO_LEARN = ("backbone.", "encoder.", "momentum_backbone.", "momentum_encoder.")
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
    unexpected : tuple of str
        Keys under the prefix that are neither the encoder's nor known to be no part of it.
    whole : str or None
        Prefix of another copy that has every key, where this one has not.
    doubt : str or None
        A sentence that asks for what no weights show: which of two encoders, or how it is built.
    choices : tuple of str
        The encoders that fit equally well, with their counts, where there are several.
    guess : str or None
        A sentence about what was taken for granted, as no weights show it.
    """

    blueprint: Blueprint
    candidate: Candidate
    layout: Layout
    container: str
    prefix: str
    why: str
    aliases: dict[str, str] = field(default_factory=dict)
    copies: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    whole: str | None = None
    doubt: str | None = None
    choices: tuple[str, ...] = ()
    guess: str | None = None


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
        The best place. It need not be whole, and may be in doubt.

    Raises
    ------
    Misnamed
        If no copy of the encoder is that branch.
    ValueError
        If a name is unknown, no encoder is there, or it needs timm.
    """
    check_names(encoder, stem, layout)
    shapes = {key: tuple(each.shape) for key, each in opened.tensors.items()}
    name = None if encoder is None else normalised_name(encoder)
    if name is None:
        _check_vit(shapes)
    pairs = list(_pairs(opened, shapes, name, stem))
    if not pairs:
        raise ValueError(_nothing(shapes, name))
    pairs.sort(key=lambda pair: -pair[1].score)
    places = [candidate for _, candidate in pairs]
    marks = opened.marks
    kept = {id(each) for each in narrowed(places, branch, layout, opened.containers, marks)}
    asked = [pair for pair in pairs if id(pair[1]) in kept]
    chosen, equals, doubt, choices = _choose(asked, lambda a, b: _same(opened, a, b))
    match = _match(opened, chosen, equals, pairs, branch)
    if doubt is not None:
        return replace(match, doubt=doubt, choices=choices)
    return _built(match, opened, name, stem)


def _nothing(shapes: dict[str, Shape], name: str | None) -> str:
    """Say that no encoder is there, and what is, where that is known."""
    family = looks_like({unwrapped(key): each for key, each in shapes.items()})
    if family is not None and name is None:
        return (
            f"checkpoint must hold an encoder that dimlab builds; got what looks like {family}. "
            f"{REMEDY}"
        )
    wanted = name or "an encoder that dimlab knows"
    if not shapes:
        return f"checkpoint must hold {wanted}; got no tensor."
    first = ", ".join(list(shapes)[:3])
    return (
        f"checkpoint must hold {wanted}; got {len(shapes)} tensors, which are not called as its "
        f"are: {first}."
    )


def _built(match: Match, opened: Opened, name: str | None, stem: str | None) -> Match:
    """Settle, or ask for, what no weights show of how the encoder is built."""
    blueprint, beside = match.blueprint, match.candidate.prefix.removesuffix("encoder.")
    if blueprint.name == "convnet":
        projectors = tuple(f"{beside}{each}." for each in ("contrastive", "redundancy"))
        is_own = any(each.startswith(projectors) for each in opened.tensors)
        if name is not None or is_own or match.layout.name == "dimlab":
            return match
        return replace(match, doubt=(
            "encoder must be named, as these are the shapes of dimlab's convnet and of many other "
            "small networks, whose strides and pooling no weights show; got none. Pass "
            "encoder='convnet' (--encoder convnet) if dimlab built it, else encode with "
            "encode_loader(module, loader)."
        ))  # fmt: skip
    if stem is not None or blueprint.stem != "cifar" or not _may_be_solo_learn(match, opened):
        return match
    if not any(key.startswith("state_dict.projector.") for key in opened.tensors):
        return replace(match, doubt=(
            "stem must be named, as an encoder beside a classifier in a Lightning file may be "
            "solo-learn's, whose 3 x 3 stem pads by 2, and no weights show it; got none. Pass "
            "stem='solo-learn' or stem='cifar' (--stem solo-learn, --stem cifar: pads by 1)."
        ))  # fmt: skip
    guess = (
        "Taken for solo-learn's, by the projector and the classifier beside it: the 3 x 3 stem "
        "pads by 2, where others pad by 1 (--stem cifar)."
    )
    built = replace(blueprint, stem="solo-learn")
    return replace(match, blueprint=built, guess=guess, why=f"{match.why} {guess}")


def _may_be_solo_learn(match: Match, opened: Opened) -> bool:
    """Whether Lightning kept a torchvision ResNet and a linear classifier as solo-learn does."""
    head = opened.tensors.get("state_dict.classifier.weight")
    *_, (width,), _ = match.blueprint.shapes().values()  # of the last BatchNorm's variances
    return (
        match.layout.name == "lightning"
        and match.candidate.spelling == "names"
        and match.prefix in _SOLO_LEARN
        and head is not None
        and tuple(head.shape[1:]) == (width,)
    )


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
        check_timm(normalised_name(encoder))
    if stem is not None and stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {stem!r}.")
    if layout is not None and layout not in LAYOUT_NAMES:
        raise ValueError(f"layout must be one of {', '.join(LAYOUT_NAMES)}; got {layout!r}.")


def _check_vit(shapes: dict[str, Shape]) -> None:
    shapes = {unwrapped(key): each for key, each in shapes.items()}
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
        bare = {unwrapped(key): each for key, each in shapes.items()}
        for prefix in vit_prefixes(bare):
            vit = vit_at(prefix, bare)
            found = candidates(shapes, vit.shapes(), ["names"])
            yield from ((vit, each) for each in found if each.prefix == prefix)
    for each in BUILT if name is None else (name,):
        if each.startswith(TIMM):
            yield from _timm_pairs(each, shapes)
            continue
        for rough in candidates(shapes, Blueprint(each).shapes()):
            place = rough.found | rough.mismatched
            exact = blueprint_at(each, shapes, place, stem)
            exact = replace(exact, stem_relu=SPELLINGS[rough.spelling].stem_relu)
            if rough.spelling == "sequential-without-pooling" and exact.stem == "imagenet":
                continue  # one child fewer than torchvision's: its ReLU, or its max-pooling
            if name is None and not _may_be(exact, place, shapes):
                continue
            yield exact, placed(rough.prefix, rough.spelling, place, shapes, exact.shapes())


def _may_be(blueprint: Blueprint, place: Mapping[str, str], shapes: Mapping[str, Shape]) -> bool:
    """Whether keys are enough to speak of an encoder that nobody has named."""
    if blueprint.name != "convnet":
        return len(place) >= _FEWEST * len(blueprint.shapes())
    kernels = {
        number: shapes[place[f"conv{number}.weight"]]
        for number in (1, 2, 3)
        if f"conv{number}.weight" in place
    }
    widths = set()  # of the features, as each convolution has it
    for number, kernel in kernels.items():
        if len(kernel) != 4 or kernel[2:] != (3, 3):
            return False
        widths.add(kernel[0] * 2 ** (3 - number))
        widths |= {kernel[1] * 2 ** (4 - number)} if number > 1 else set()
    return len(kernels) > 1 and len(widths) == 1


def _timm_pairs(name: str, shapes: dict[str, Shape]) -> Iterator[Pair]:
    wanted = Blueprint(name).shapes()
    first = next((key for key, shape in wanted.items() if len(shape) == 4 and min(shape) >= 1), "")
    for rough in candidates(shapes, wanted, ["names"]):
        place = rough.found | rough.mismatched
        at = shapes.get(place.get(first, ""), ())
        exact = Blueprint(name, in_channels=at[1] if len(at) == 4 and at[1] else 3)
        bare = {unwrapped(key): each for key, each in shapes.items()}
        if "pos_embed" in rough.mismatched and rough.prefix in vit_prefixes(bare):
            exact = replace(exact, image_size=vit_at(rough.prefix, bare).image_size)
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
) -> tuple[Pair, list[Candidate], str | None, tuple[str, ...]]:
    """Take the first branch and its best place; its equal places, and what makes it doubtful."""
    best = pairs[0][1].score
    rivals = [pair for pair in pairs if pair[1].score >= min(_RIVAL, best)]
    branches = {each.branch for _, each in rivals}
    first = next(name for name in BRANCHES if name in branches)
    rivals = [pair for pair in rivals if pair[1].branch == first]
    score = rivals[0][1].score
    rivals = [pair for pair in rivals if pair[1].score == score]
    blueprint, chosen = min(rivals, key=lambda pair: len(pair[1].prefix))
    equals, doubts, others = [], [], [(blueprint, chosen)]
    for other, place in rivals:
        if place is chosen:
            continue
        if place.prefix == chosen.prefix:
            if other.name != blueprint.name:
                others.append((other, place))
                doubts.append(
                    f"encoder must be named, as {blueprint.name} and {other.name} fit equally "
                    f"well; got none. Pass encoder={blueprint.name!r} (--encoder {blueprint.name})."
                )
        elif same(chosen, place):
            equals.append(place)
        else:
            others.append((other, place))
            a, b = chosen.prefix.strip("."), place.prefix.strip(".")
            doubts.append(
                f"branch must say which of two encoders with different weights is meant, {a!r} or "
                f"{b!r}; got none. Pass branch={b!r} (--branch {b})."
            )
    choices = tuple(f"{each.name} {_counted(place)}" for each, place in others)
    return (blueprint, chosen), equals, doubts[0] if doubts else None, choices


def _counted(place: Candidate) -> str:
    n_wanted = len(place.found) + len(place.mismatched) + len(place.missing)
    under = f"under {place.prefix!r}" if place.prefix else "without a prefix"
    return f"{under} ({len(place.found)} of {n_wanted} keys)"


def _same(opened: Opened, a: Candidate, b: Candidate) -> bool:
    if a.found.keys() != b.found.keys():
        return False
    return all(_equal(opened, a.found[key], b.found[key]) for key in a.found)


def _equal(opened: Opened, a: str, b: str) -> bool:
    one, other = opened.tensors[a], opened.tensors[b]
    if fault_of(one, counts=True) or fault_of(other, counts=True):
        return False  # what torch cannot compare is no copy
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _match(
    opened: Opened, chosen: Pair, equals: list[Candidate], pairs: list[Pair], branch: str | None
) -> Match:
    blueprint, place = chosen
    aliases: dict[str, str] = {}
    copies: list[str] = []
    whole = None
    for other, each in pairs:
        if each is place or each.prefix == place.prefix or other.name != blueprint.name:
            continue
        if each.score < min(_RIVAL, place.score):
            continue
        if each not in equals:
            copies.append(each.prefix)
            whole = whole or (each.prefix if each.is_whole and not place.is_whole else None)
        for key, name in each.found.items():
            if key.endswith(OPTIONAL) and each not in equals:
                continue  # counts of batches agree without meaning anything
            if key in place.found and name != place.found[key]:
                if _equal(opened, name, place.found[key]):
                    aliases[name] = key
    container, prefix = split_prefix(place.prefix, opened.containers)
    layout = layout_of(place, opened.containers, opened.marks)
    copies = list(dict.fromkeys(copies))
    why = _why(chosen, layout, equals, copies, branch)
    inner = {each.prefix for _, each in pairs if each.score >= min(_RIVAL, place.score)}
    unexpected = _unexpected(place, tuple(inner))
    return Match(
        blueprint, place, layout, container, prefix, why, aliases, tuple(copies), unexpected, whole
    )


def _unexpected(place: Candidate, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Keys under a prefix that another copy, a head or the like does not explain."""
    inner = tuple(each for each in prefixes if len(each) > len(place.prefix))
    return tuple(
        name
        for name in (*place.unexpected, *place.beside)
        if not is_known_beside(unwrapped(name)[len(place.prefix) :])
        and not unwrapped(name).startswith(inner)
    )


def _why(
    chosen: Pair,
    layout: Layout,
    equals: list[Candidate],
    copies: list[str],
    branch: str | None,
) -> str:
    blueprint, place = chosen
    n_found = len(place.found)
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
