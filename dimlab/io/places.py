"""A file of weights and the places in it where an encoder may lie, by keys with equal shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dimlab.io.blueprints import (
    POOLS,
    Blueprint,
    check_name,
    full_name,
)
from dimlab.io.files import Misnamed
from dimlab.io.layouts import (
    OPTIONAL,
    Layout,
    Shape,
    Spelling,
    branch_of,
    layouts,
    unwrapped,
)
from dimlab.io.unpickle import Opened, fault_of
from dimlab.refusals import Refusal
from dimlab.training.encoders import STEMS


@dataclass(frozen=True)
class Wanted:
    """What a person says of the encoder in a file; None is what nobody has said."""

    encoder: str | None = None
    stem: str | None = None
    layout: str | None = None
    branch: str | None = None
    pool: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    is_recorded: bool = False  # whether a folder says how the encoder is built

    def check(self) -> None:
        """Refuse names that fit no file."""
        if self.encoder is not None:
            check_name(full_name(self.encoder))
        if self.stem is not None and self.stem not in STEMS:
            raise Refusal(f"stem must be one of {', '.join(STEMS)}; got {self.stem!r}.")
        known = list(dict.fromkeys(each.name for each in layouts()))
        if self.layout is not None and self.layout not in known:
            raise Refusal(f"layout must be one of {', '.join(known)}; got {self.layout!r}.")
        if self.pool is not None and self.pool not in POOLS:
            raise Refusal(f"pool must be one of {', '.join(POOLS)}; got {self.pool!r}.")

    def check_left_out(self, what: str, but: Sequence[str] = ("pool",)) -> None:
        """Refuse what would change nothing of an encoder that something else describes."""
        given = vars(self) | {"encoder_option": [name for name, _ in self.options] or None}
        for name in ("encoder", "stem", "layout", "branch", "pool", "encoder_option"):
            if given[name] is not None and name not in but:
                raise Misnamed(f"{name} must be left out for {what}; got {given[name]!r}.")


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

    opened: Opened  # in the names of the encoder's package, where the file has its authors'
    place: Place
    layout: Layout
    container: str
    prefix: str  # within the container
    why: str = ""
    equals: tuple[Place, ...] = ()  # places with the same numbers
    copies: tuple[str, ...] = ()  # prefixes of other copies, which were not taken
    unexpected: tuple[str, ...] = ()  # names that are neither the encoder's nor known beside it
    whole: str | None = None  # prefix of another copy that has every key, where this one has not
    doubt: str | None = None  # a sentence that asks for what no weights show
    choices: tuple[str, ...] = ()  # encoders that fit equally well, with their counts
    assumed: tuple[str, ...] = ()  # what was taken for granted, with the flag that changes it

    @property
    def blueprint(self) -> Blueprint:
        """The encoder."""
        return self.place.blueprint

    @property
    def aliases(self) -> dict[str, str]:
        """Names of equal tensors elsewhere, and their keys."""
        return {name: key for each in self.equals for key, name in each.found.items()}


Shapes = dict[str, Shape]  # of the file, by unwrapped names


@dataclass(frozen=True, eq=False)
class WeightFile:
    """Names of a file by their names without wrappers, and shapes by these."""

    opened: Opened
    plain: dict[str, str]
    shapes: Shapes

    @classmethod
    def of(cls, opened: Opened) -> WeightFile:
        """Take the tensors of an opened file."""
        plain: dict[str, str] = {}
        for name in opened.tensors:
            plain.setdefault(unwrapped(name), name)
        return cls(opened, plain, {k: tuple(opened.tensors[n].shape) for k, n in plain.items()})

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose plain names begin with a prefix, by what follows it."""
        return {
            key[len(prefix) :]: self.opened.tensors[name]
            for key, name in self.plain.items()
            if key.startswith(prefix)
        }

    def renamed(self, prefix: str, inner: Mapping[str, Tensor]) -> WeightFile:
        """Return the file with other tensors under a prefix."""
        beside = {
            name: each
            for name, each in self.opened.tensors.items()
            if not unwrapped(name).startswith(prefix)
        }
        within = {f"{prefix}{key}": each for key, each in inner.items()}
        return WeightFile.of(replace(self.opened, tensors=within | beside))

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
            if 2 * len(place) >= most  # with fewer keys it is no copy of the encoder
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
