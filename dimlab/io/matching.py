"""Where an encoder lies in a file: by keys with equal shapes under one prefix, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from dimlab.io.blueprints import (
    NEEDS_TIMM,
    TIMM,
    Blueprint,
    blueprint_at,
    check_timm,
    full_name,
    has_timm,
    vit_at,
    vit_prefixes,
)
from dimlab.io.files import Misnamed
from dimlab.io.layouts import (
    BRANCHES,
    OPTIONAL,
    OWN,
    REMEDY,
    RULE,
    Layout,
    Shape,
    Spelling,
    branch_of,
    is_known_beside,
    layout_of,
    layouts,
    looks_like,
    unwrapped,
)
from dimlab.io.unpickle import Opened, fault_of
from dimlab.refusals import Refusal
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import BUILT, STEMS

_RIVAL = 0.5  # a copy of the encoder has at least this share of its keys
_FEWEST = 0.25  # share of an encoder's keys without which a file is not said to hold it
_SOLO_LEARN = ("backbone.", "encoder.", "momentum_backbone.", "momentum_encoder.")


def check_names(encoder: str | None, stem: str | None, layout: str | None) -> None:
    """Refuse names that fit no file."""
    if encoder is not None:
        check_timm(full_name(encoder))
    if stem is not None and stem not in STEMS:
        raise Refusal(f"stem must be one of {', '.join(STEMS)}; got {stem!r}.")
    known = list(dict.fromkeys(each.name for each in layouts()))
    if layout is not None and layout not in known:
        raise Refusal(f"layout must be one of {', '.join(known)}; got {layout!r}.")


@dataclass(frozen=True, eq=False)
class Place:
    """A place in a file where an encoder may lie; keys are the encoder's, names the file's."""

    blueprint: Blueprint
    prefix: str  # what stands before the encoder's keys, container included
    spelling: Spelling
    found: dict[str, str]  # names of the keys whose shapes agree
    mismatched: dict[str, str]  # and of those whose shapes do not
    missing: tuple[str, ...]
    inside: tuple[str, ...]  # other names in the encoder's own parts
    beside: tuple[str, ...]  # other names under the prefix

    @property
    def is_whole(self) -> bool:
        """Whether every key is there with its shape, and no other in the encoder's parts."""
        return not (self.mismatched or self.missing or self.inside)

    @property
    def score(self) -> float:
        """Keys that agree, as a share of all that the encoder or its place in the file has."""
        n_found = sum(not key.endswith(OPTIONAL) for key in self.found)
        others = len(self.mismatched) + len(self.inside)
        others += sum(not key.endswith(OPTIONAL) for key in self.missing)
        return n_found / max(n_found + others, 1)

    @property
    def branch(self) -> str:
        """Which of several copies of the encoder this is."""
        return branch_of(self.prefix)

    @property
    def n_wanted(self) -> int:
        """Keys that the encoder has, but for counts of batches that the file leaves out."""
        return len(self.found) + len(self.mismatched) + len(self.missing)

    @property
    def under(self) -> str:
        """The prefix, in words."""
        return f"under {self.prefix!r}" if self.prefix else "without a prefix"


@dataclass(frozen=True, eq=False)
class Match:
    """The place that was taken, and why."""

    place: Place
    layout: Layout
    container: str
    prefix: str  # within the container
    why: str
    aliases: dict[str, str] = field(
        default_factory=dict
    )  # names with equal tensors, and their keys
    copies: tuple[str, ...] = ()  # prefixes of other copies, which were not taken
    unexpected: tuple[str, ...] = ()  # names that are neither the encoder's nor known beside it
    whole: str | None = None  # prefix of another copy that has every key, where this one has not
    doubt: str | None = None  # a sentence that asks for what no weights show
    choices: tuple[str, ...] = ()  # encoders that fit equally well, with their counts
    guess: str | None = None  # a sentence about what was taken for granted

    @property
    def blueprint(self) -> Blueprint:
        """The encoder."""
        return self.place.blueprint


Shapes = dict[str, Shape]  # of the file, by unwrapped names


@dataclass(frozen=True, eq=False)
class _File:
    """Names of a file by their names without wrappers, and shapes by these."""

    opened: Opened
    plain: dict[str, str]
    shapes: Shapes

    @classmethod
    def of(cls, opened: Opened) -> _File:
        plain: dict[str, str] = {}
        for name in opened.tensors:
            plain.setdefault(unwrapped(name), name)
        return cls(opened, plain, {k: tuple(opened.tensors[n].shape) for k, n in plain.items()})

    def places(self, rough: Blueprint, spellings: Sequence[Spelling]) -> list[Place]:
        """Find every place with keys of an encoder; a prefix is what stands before such a key."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        named = {each.name: each for each in spellings}
        wanted = rough.shapes()
        for spelling in spellings:
            spelled = {spelling.of(key): key for key in wanted}
            if spelling is not spellings[0] and list(spelled.values()) == list(spelled):
                continue  # an encoder that this spelling leaves as it is
            for key in self.shapes:
                rest, prefix = key, ""
                while rest:
                    if rest in spelled:
                        found.setdefault((prefix, spelling.name), {})[spelled[rest]] = key
                    first, dot, rest = rest.partition(".")
                    prefix += first + dot
        most = max(map(len, found.values()), default=0)
        return [
            self.placed(rough, prefix, named[name], place)
            for (prefix, name), place in found.items()
            if 2 * len(place)
            >= most  # with fewer keys it is no copy of the encoder's: save the time
        ]

    def placed(
        self, blueprint: Blueprint, prefix: str, spelling: Spelling, at: Mapping[str, str]
    ) -> Place:
        """Compare the keys under a prefix, ``at`` these plain names, with an encoder."""
        wanted = blueprint.shapes()
        there = {key: at[key] for key in wanted if key in at}
        agree = {
            key: name for key, name in there.items()
            if self.shapes[name] == wanted[key]
            or (key.endswith(OPTIONAL) and self.shapes[name] in ((), (1,)))
        }  # fmt: skip
        counted = any(key.endswith(OPTIONAL) for key in at)

        def is_missed(key: str) -> bool:  # a count of batches only where its whole layer is
            is_count = key.endswith(OPTIONAL)
            return not is_count or (counted and key.replace(OPTIONAL, "running_mean") not in at)

        parts = {spelling.of(first) for first in {key.split(".")[0] for key in wanted}}
        taken = set(at.values())
        rest = [key for key in self.shapes if key.startswith(prefix) and key not in taken]
        inside = [key for key in rest if key[len(prefix) :].split(".")[0] in parts]
        return Place(
            blueprint, prefix, spelling,
            {key: self.plain[name] for key, name in agree.items()},
            {key: self.plain[name] for key, name in there.items() if key not in agree},
            tuple(key for key in wanted if key not in at and is_missed(key)),
            tuple(self.plain[key] for key in inside),
            tuple(self.plain[key] for key in rest if key not in set(inside)),
        )  # fmt: skip

    def equal(self, a: str, b: str) -> bool:
        """Whether two tensors are the same numbers; what torch cannot compare is no copy."""
        one, other = self.opened.tensors[a], self.opened.tensors[b]
        if fault_of(one, counts=True) or fault_of(other, counts=True):
            return False
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def find_encoder(
    opened: Opened,
    *,
    encoder: str | None = None,
    stem: str | None = None,
    layout: str | None = None,
    branch: str | None = None,
) -> Match:
    """Find the best place of an encoder in a file; it need not be whole, and may be in doubt."""
    check_names(encoder, stem, layout)
    file = _File.of(opened)
    name = None if encoder is None else full_name(encoder)
    places = sorted(_places(file, name, stem), key=lambda e: (-e.score, len(e.prefix), e.prefix))
    if not places:
        raise Refusal(_nothing(file.shapes, name))
    marks = opened.marks

    def row_of(place: Place) -> Layout:
        container, prefix = _split(place.prefix, opened.containers)
        return layout_of(container, prefix, place.spelling, marks, place.blueprint.layout)

    asked = places
    if layout is not None:
        asked = [each for each in places if row_of(each).name == layout]
        if not asked:
            best = row_of(places[0]).name
            raise Refusal(f"layout must be {best!r} for this file; got {layout!r}.")
    asked = _of_branch(asked, branch)
    chosen, equals, doubt, choices = _chosen(file, asked)
    container, prefix = _split(chosen.prefix, opened.containers)
    match = _described(
        file, Match(chosen, row_of(chosen), container, prefix, ""), equals, places, branch
    )
    if doubt is not None:
        return replace(match, doubt=doubt, choices=choices)
    return _built(match, opened, name, stem)


def _split(prefix: str, containers: Sequence[str]) -> tuple[str, str]:
    """Split a prefix into the mapping where the keys lie and what stands before them there."""
    fitting = [each for each in containers if each and prefix.startswith(f"{each}.")]
    container = max(fitting, key=len, default="")
    return container, prefix.removeprefix(f"{container}." if container else "")


def _nothing(shapes: Shapes, name: str | None) -> str:
    """Say that no encoder is there, and what is, where that is known."""
    family = looks_like(shapes)
    if family is not None and name is None:
        return (
            f"checkpoint must hold an encoder that dimlab builds; got what looks like {family}. "
            f"{REMEDY}"
        )
    wanted = name or "an encoder that dimlab knows"
    if not shapes:
        return f"checkpoint must hold {wanted}; got no tensor."
    return (
        f"checkpoint must hold {wanted}; got {len(shapes)} tensors, which are not called as its "
        f"are: {', '.join(list(shapes)[:3])}."
    )


def _places(file: _File, name: str | None, stem: str | None) -> Iterator[Place]:
    """Every encoder at every place that has keys of it."""
    own = _own(file.opened) if name is None else None
    if own is not None:
        yield from file.places(own, [OWN])
        return
    for row in layouts() if name is None else ():
        module = None
        if row.build is not None:
            with torch.random.fork_rng(devices=[]):
                module = row.build(file.shapes)
        if module is not None:
            yield from file.places(Blueprint(row.name, module=module, layout=row), row.spellings)
    for prefix in vit_prefixes(file.shapes) if name is None else ():
        vit = vit_at(prefix, file.shapes)
        if not has_timm():
            raise Refusal(f"checkpoint holds a vision transformer ({vit.name}), which "
                             f"{NEEDS_TIMM}.")  # fmt: skip
        yield from (each for each in file.places(vit, [OWN]) if each.prefix == prefix)
    for each in BUILT if name is None else (name,):
        if each.startswith(TIMM):
            yield from _of_timm_at(file, each)
            continue
        spellings = {e.name: e for row in layouts() if row.build is None for e in row.spellings}
        for rough in file.places(Blueprint(each), [OWN, *spellings.values()]):
            at = {k: unwrapped(n) for k, n in (rough.found | rough.mismatched).items()}
            exact = replace(
                blueprint_at(each, file.shapes, at, stem), stem_relu=rough.spelling.stem_relu
            )
            if not rough.spelling.pools and exact.stem == "imagenet":
                continue  # one child fewer than torchvision's: its ReLU, or its max-pooling
            if name is None and not _may_be(exact, at, file.shapes):
                continue
            yield file.placed(exact, rough.prefix, rough.spelling, at)


def _may_be(blueprint: Blueprint, at: Mapping[str, str], shapes: Shapes) -> bool:
    """Whether keys are enough to speak of an encoder that nobody has named."""
    if blueprint.name != "convnet":
        return len(at) >= _FEWEST * len(blueprint.shapes())
    kernels = {n: shapes[at[f"conv{n}.weight"]] for n in (1, 2, 3) if f"conv{n}.weight" in at}
    widths = set()  # of the features, as each convolution has it
    for number, kernel in kernels.items():
        if len(kernel) != 4 or kernel[2:] != (3, 3):
            return False
        widths.add(kernel[0] * 2 ** (3 - number))
        widths |= {kernel[1] * 2 ** (4 - number)} if number > 1 else set()
    return len(kernels) > 1 and len(widths) == 1


def _of_timm_at(file: _File, name: str) -> Iterator[Place]:
    """Places of a model of timm's, with the channels and the image size that the shapes show."""
    wanted = Blueprint(name).shapes()
    first = next((key for key, shape in wanted.items() if len(shape) == 4 and min(shape) >= 1), "")
    for rough in file.places(Blueprint(name), [OWN]):
        at = {k: unwrapped(n) for k, n in (rough.found | rough.mismatched).items()}
        shape = file.shapes.get(at.get(first, ""), ())
        exact = Blueprint(name, in_channels=shape[1] if len(shape) == 4 and shape[1] else 3)
        if "pos_embed" in rough.mismatched and rough.prefix in vit_prefixes(file.shapes):
            exact = replace(exact, image_size=vit_at(rough.prefix, file.shapes).image_size)
        yield file.placed(exact, rough.prefix, OWN, at)


def _own(opened: Opened) -> Blueprint | None:
    """Read the encoder of a dimlab checkpoint off its configuration."""
    try:
        config = TrainConfig.from_dict(json.loads(opened.values["config"]))
        channels = json.loads(opened.values["data"])["shape"][0]
        if type(channels) is not int or channels < 1:
            return None
        stem = None if config.encoder == "convnet" else config.stem
        own = Blueprint(config.encoder, channels, stem, config.stem_relu, config.n_dimensions)
        own.shapes()  # refuses what cannot be built
        return own
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _of_branch(places: list[Place], branch: str | None) -> list[Place]:
    """Keep the places of the branch that a person names: one of `BRANCHES`, or part of a prefix."""
    if branch is None:
        return places
    word = branch.strip(".")
    kept = [
        each for each in places
        if branch in (each.branch, *BRANCHES[each.branch])
        or word in (*each.prefix.strip(".").split("."), each.prefix.strip("."))
    ]  # fmt: skip
    if not kept:
        first = [each for each in places if each.score >= places[0].score]
        known = dict.fromkeys(f"{each.branch} ({each.prefix or 'no prefix'})" for each in first)
        raise Misnamed(f"branch must be one of {', '.join(known)}; got {branch!r}.")
    return kept


def _chosen(
    file: _File, places: list[Place]
) -> tuple[Place, list[Place], str | None, tuple[str, ...]]:
    """Take the first branch and its best place; its equal places, and what makes it doubtful."""
    rivals = [each for each in places if each.score >= min(_RIVAL, places[0].score)]
    branches = {each.branch for each in rivals}
    first = next(name for name in BRANCHES if name in branches)
    rivals = [each for each in rivals if each.branch == first]
    chosen = rivals[0]  # the best, and of the best the shortest prefix
    equals: list[Place] = []
    doubts, others = [], [chosen]
    for place in rivals[1:]:
        if place.score < chosen.score:
            break
        a, b = chosen.blueprint.name, place.blueprint.name
        if place.prefix == chosen.prefix:
            if a != b:
                others.append(place)
                doubts.append(
                    f"encoder must be named, as {a} and {b} fit equally well; got none. Pass "
                    f"encoder={a!r} (--encoder {a})."
                )
        elif place.found.keys() == chosen.found.keys() and all(
            file.equal(name, place.found[key]) for key, name in chosen.found.items()
        ):
            equals.append(place)
        else:
            others.append(place)
            one, other = chosen.prefix.strip("."), place.prefix.strip(".")
            doubts.append(
                "branch must say which of two encoders with different weights is meant, "
                f"{one!r} or {other!r}; got none. Pass branch={other!r} (--branch {other})."
            )
    choices = tuple(
        f"{each.blueprint.name} {each.under} ({len(each.found)} of {each.n_wanted} keys)"
        for each in others
    )
    return chosen, equals, doubts[0] if doubts else None, choices


def _is_twin(file: _File, place: Place, name: str) -> bool:
    """Whether a name stands for a key that another name, with other wrappers, has already."""
    key = unwrapped(name)
    return file.plain[key] != name and key.startswith(place.prefix)


def _described(
    file: _File, match: Match, equals: list[Place], places: list[Place], branch: str | None
) -> Match:
    """Say why this place, which other names hold the same numbers, and which copies were left."""
    place = match.place
    near = [each for each in places if each.score >= min(_RIVAL, place.score)]
    copies: dict[str, None] = {}
    aliases: dict[str, str] = {}
    whole = None
    for each in near:
        if each.prefix == place.prefix or each.blueprint.name != place.blueprint.name:
            continue
        if each not in equals:
            copies[each.prefix] = None
            whole = whole or (each.prefix if each.is_whole and not place.is_whole else None)
        for key, name in each.found.items():
            if key.endswith(OPTIONAL) and each not in equals:
                continue  # counts of batches agree without meaning anything
            if key in place.found and name != place.found[key]:
                if file.equal(name, place.found[key]):
                    aliases[name] = key
    inner = tuple(each.prefix for each in near if len(each.prefix) > len(place.prefix))
    unexpected = tuple(
        name
        for name in (*place.inside, *place.beside)
        if not is_known_beside(unwrapped(name)[len(place.prefix) :])
        and not unwrapped(name).startswith(inner)
    ) + tuple(name for name in file.opened.tensors if _is_twin(file, place, name))
    said = [match.layout.why] if match.layout is not layouts()[-1] or place.prefix else []
    said.append(
        f"{len(place.found)} of {place.n_wanted} keys of {place.blueprint.name} stand "
        f"{place.under} with equal shapes."
    )
    said += [] if place.spelling is OWN else [f"Spelled as {place.spelling.name}."]
    if equals:
        names = ", ".join(repr(each.prefix) for each in equals)
        said.append(f"Equal copies stand under {names}.")
    if copies:
        names = ", ".join(map(repr, copies))
        rule = "as asked for" if branch is not None else f"by the rule: {RULE}"
        said.append(f"The {place.branch} branch was taken, not {names}, {rule}.")
    return replace(
        match, why=" ".join(said), aliases=aliases, copies=tuple(copies), unexpected=unexpected,
        whole=whole,
    )  # fmt: skip


def _built(match: Match, opened: Opened, name: str | None, stem: str | None) -> Match:
    """Settle, or ask for, what no weights show of how the encoder is built."""
    place, blueprint = match.place, match.blueprint
    if blueprint.name == "convnet":
        beside = place.prefix.removesuffix("encoder.")
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
    head = opened.tensors.get("state_dict.classifier.weight")
    # Lightning keeps a torchvision ResNet and a linear classifier as solo-learn does
    may_be_solo_learn = (
        blueprint.stem == "cifar"
        and match.layout.name == "lightning"
        and place.spelling is OWN
        and match.prefix in _SOLO_LEARN
        and head is not None
        and tuple(head.shape[1:]) == list(blueprint.shapes().values())[-2]  # the last variances
    )
    if stem is not None or not may_be_solo_learn:
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
    built = replace(place, blueprint=replace(blueprint, stem="solo-learn"))
    return replace(match, place=built, guess=guess, why=f"{match.why} {guess}")
