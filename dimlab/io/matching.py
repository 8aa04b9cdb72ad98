"""Where an encoder lies in a file: by keys with equal shapes under one prefix, whoever wrote it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from dimlab.io.blueprints import (
    NEEDS_TIMM,
    NORM_EPS,
    NOT_OPTIONS,
    OPEN_CLIP,
    TIMM,
    Blueprint,
    blueprint_at,
    check_name,
    full_name,
    has_timm,
    in_timm_s_names,
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
    is_known_beside,
    layout_of,
    layouts,
    looks_like,
    remedy_of,
    role_of,
    unwrapped,
)
from dimlab.io.places import Match, Place, Shapes, Wanted, WeightFile
from dimlab.io.unpickle import Opened
from dimlab.refusals import Refusal
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import BUILT

_RIVAL = 0.5  # a copy of the encoder has at least this share of its keys
_FEWEST = 0.25  # share of an encoder's keys without which a file is not said to hold it


def find_encoder(opened: Opened, wanted: Wanted | None = None) -> Match:
    """Find the best place of an encoder in a file; it need not be whole, and may be in doubt."""
    wanted = wanted or Wanted()
    wanted.check()
    name = None if wanted.encoder is None else full_name(wanted.encoder)
    file, places = _read(opened, name, wanted)
    if not places:
        raise (Refusal if name is None else Misnamed)(_nothing(file.shapes, name))
    # what an optimiser keeps of a network is no encoder beside it
    places = [each for each in places if role_of(each.prefix) != "optimiser"] or places
    places = sorted(places, key=lambda e: (-e.score, len(e.prefix), e.prefix))
    marks = opened.marks

    def row_of(place: Place) -> Layout:
        container, prefix = _split(place.prefix, opened.containers)
        return layout_of(container, prefix, place.spelling, marks, place.blueprint.layout)

    asked = places
    if wanted.layout is not None:
        asked = [each for each in places if row_of(each).name == wanted.layout]
        if not asked:
            best = row_of(places[0]).name
            raise Misnamed(f"layout must be {best!r} for this file; got {wanted.layout!r}.")
    asked = _of_branch(asked, wanted.branch)
    chosen, equals, doubt, choices = _chosen(file, asked, row_of(asked[0]).first)
    container, prefix = _split(chosen.prefix, opened.containers)
    match = Match(file.opened, chosen, row_of(chosen), container, prefix, equals=tuple(equals))
    match = _described(file, match, places, wanted.branch)
    if name is None and chosen.score < _FEWEST:
        return replace(match, doubt=_of_shapes(file, chosen))
    return match if doubt is None else replace(match, doubt=doubt, choices=choices)


def _of_shapes(file: WeightFile, place: Place) -> str:
    """Say that keys are called as an encoder's are, and are another network's."""
    key, there = next(iter(place.mismatched.items()), ("", ""))
    first = f", as {there} of shape {file.shapes[unwrapped(there)]}" if key else ""
    return (
        f"checkpoint must hold an encoder that dimlab builds; got keys called as those of "
        f"{place.blueprint.name} are, with other shapes{first}. {REMEDY}"
    )


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
            f"{remedy_of(family)}"
        )
    wanted = name or "an encoder that dimlab knows"
    if not shapes:
        return f"checkpoint must hold {wanted}; got no tensor."
    return (
        f"checkpoint must hold {wanted}; got {len(shapes)} tensors, which are not called as its "
        f"are: {', '.join(list(shapes)[:3])}. {REMEDY}"
    )


# Every encoder at every place that has keys of it ------------------------------------------------


def _read(opened: Opened, name: str | None, wanted: Wanted) -> tuple[WeightFile, list[Place]]:
    """Return a file in the names of the encoder's package, and the places in it."""
    file = WeightFile.of(opened)
    own = _own(opened) if name is None else None
    if own is not None:
        return file, file.places(own, [OWN])
    recorded = f"{TIMM}{opened.values.get('arch')}"  # by timm's training script
    options = _recorded(opened.values)
    if name is None and (options or recorded.removeprefix(TIMM) not in BUILT) and has_timm():
        try:
            check_name(recorded)
            asked = replace(wanted, options=tuple((options | dict(wanted.options)).items()))
            found = _read(opened, recorded, asked)
        except ValueError:
            found = file, []
        if any(each.is_whole for each in found[1]):
            return found
    if name is not None:
        if name.startswith((TIMM, OPEN_CLIP)):
            return _of_package(file, name, wanted)
        return file, list(_built_here(file, name, wanted.stem, is_named=True))
    for prefix in vit_prefixes(file.shapes):
        inner = in_timm_s_names(file.under(prefix))
        file = file if inner is None else file.renamed(prefix, inner)
    places: list[Place] = []
    for row in layouts():
        with torch.random.fork_rng(devices=[]):
            module = row.build(file.shapes) if row.build is not None else None
        if module is not None:
            places += file.places(Blueprint(row.name, module=module, layout=row), row.spellings)
    for prefix in vit_prefixes(file.shapes):
        vit = vit_at(prefix, file.shapes, wanted.pool, dict(wanted.options))
        if not has_timm():
            raise Refusal(f"checkpoint holds a vision transformer ({vit.name}), which "
                             f"{NEEDS_TIMM}.")  # fmt: skip
        places += [each for each in file.places(vit, [OWN]) if each.prefix == prefix]
    for each in BUILT:
        places += _built_here(file, each, wanted.stem, is_named=False)
    return file, places


def _recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that timm's training script recorded beside the name of a model."""
    before = "args.model_kwargs."
    options = {k.removeprefix(before): each for k, each in values.items() if k.startswith(before)}
    options |= {"global_pool": values["args.gp"]} if "args.gp" in values else {}
    options |= {NORM_EPS: values["args.bn_eps"]} if "args.bn_eps" in values else {}
    return {name: each for name, each in options.items() if name not in NOT_OPTIONS}


def _built_here(
    file: WeightFile, name: str, stem: str | None, *, is_named: bool
) -> Iterator[Place]:
    """Places of an encoder that dimlab builds."""
    spellings = {e.name: e for row in layouts() if row.build is None for e in row.spellings}
    for rough in file.places(Blueprint(name), [OWN, *spellings.values()]):
        at = {k: unwrapped(n) for k, n in (rough.found | rough.mismatched).items()}
        exact = replace(
            blueprint_at(name, file.shapes, at, stem), stem_relu=rough.spelling.stem_relu
        )
        if not rough.spelling.pools and exact.stem == "imagenet":
            continue  # one child fewer than torchvision's: its ReLU, or its max-pooling
        if is_named or _may_be(exact, at, file.shapes):
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


def _of_package(file: WeightFile, name: str, wanted: Wanted) -> tuple[WeightFile, list[Place]]:
    """Places of a model of timm's or open_clip's, in its own names or in its authors'."""
    options = dict(wanted.options)
    if name.startswith(TIMM) and wanted.pool in ("cls", "mean"):
        options["global_pool"] = "token" if wanted.pool == "cls" else "avg"
        options |= {"fc_norm": False} if "vit_" in name or "deit" in name else {}
    blueprint = Blueprint(name, options=tuple(options.items()))
    shapes = blueprint.shapes()
    first = next((key for key, shape in shapes.items() if len(shape) == 4 and min(shape)), "")

    def found_in(file: WeightFile) -> Iterator[Place]:
        for rough in file.places(blueprint, [OWN]):
            at = {k: unwrapped(n) for k, n in (rough.found | rough.mismatched).items()}
            shape, exact = file.shapes.get(at.get(first, ""), ()), blueprint
            if name.startswith(TIMM) and len(shape) == 4 and shape[1]:
                exact = replace(exact, in_channels=shape[1])
            if "pos_embed" in rough.mismatched and rough.prefix in vit_prefixes(file.shapes):
                size = dict(vit_at(rough.prefix, file.shapes).options).get("img_size")
                if size is not None and "img_size" not in options:
                    exact = replace(exact, options=(*exact.options, ("img_size", size)))
            yield file.placed(exact, rough.prefix, OWN, at)

    places = list(found_in(file))
    if name.startswith(TIMM) and not any(each.is_whole for each in places):
        prefixes = [*dict.fromkeys(each.prefix for each in places), *_containers(file.opened)]
        for prefix in prefixes:
            inner = _converted(blueprint, file.under(prefix))
            if inner is not None:
                converted = file.renamed(prefix, inner)
                return converted, list(found_in(converted))
    return file, places


def _containers(opened: Opened) -> list[str]:
    return [f"{each}." if each else "" for each in opened.containers]


def _converted(blueprint: Blueprint, inner: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Convert an official file's tensors as timm itself does; None where they do not fit then."""
    module = blueprint.build()
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        with redirect_stdout(StringIO()):  # timm prints there what it leaves out
            found = convert(dict(inner), module) if convert is not None else {}
    except Exception:  # the tensors are in no format that timm converts: they are refused as named
        return None
    biases = [key for key, each in inner.items() if key.endswith("qkv.bias") and each.any()]
    if biases and found and not any(key.endswith(("qkv.bias", "q_bias")) for key in found):
        raise Refusal(
            f"encoder must have the biases of queries and values that the file has, {biases[0]}; "
            f"got {blueprint.name}. Name the model that has them: --encoder {blueprint.name}_qkvb."
        )
    wanted = blueprint.shapes()
    for key, shape in wanted.items():
        if key.endswith(OPTIONAL):
            continue
        if not isinstance(found.get(key), Tensor) or tuple(found[key].shape) != shape:
            return None
        before = inner.get(key)  # timm resamples what is of another size: that is another network
        if before is not None and sum(before.shape) - sum(shape) not in (0, 1):
            return None
    return {key: each for key, each in found.items() if isinstance(each, Tensor)}


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


# Which of them is meant ---------------------------------------------------------------------------


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
    file: WeightFile, places: list[Place], evaluated: str | None
) -> tuple[Place, list[Place], str | None, tuple[str, ...]]:
    """Take the first branch and its best place; its equal places, and what makes it doubtful."""
    rivals = [each for each in places if each.score >= min(_RIVAL, places[0].score)]
    branches = {each.branch for each in rivals}
    order = [evaluated, *BRANCHES]
    first = next(name for name in order if name in branches)
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


def _described(file: WeightFile, match: Match, places: list[Place], branch: str | None) -> Match:
    """Say why this place, and which copies were left."""
    place, equals = match.place, match.equals
    near = [each for each in places if each.score >= min(_RIVAL, place.score)]
    others = [
        each for each in near
        if each.prefix != place.prefix and each not in equals
        and each.blueprint.name == place.blueprint.name
    ]  # fmt: skip
    copies = tuple(dict.fromkeys(each.prefix for each in others))
    whole = next((each.prefix for each in others if each.is_whole), None)
    inner = tuple(each.prefix for each in near if len(each.prefix) > len(place.prefix))
    unexpected = [
        name
        for name in (*place.inside, *place.beside)
        if not is_known_beside(unwrapped(name)[len(place.prefix) :])
        and not unwrapped(name).startswith(inner)
    ]
    twins = [  # names for a key that another name, with other wrappers, has already
        name for name in file.opened.tensors
        if file.plain[unwrapped(name)] != name and unwrapped(name).startswith(place.prefix)
    ]  # fmt: skip
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
        match, why=" ".join(said), copies=copies, unexpected=(*unexpected, *twins),
        whole=None if place.is_whole else whole,
    )  # fmt: skip
