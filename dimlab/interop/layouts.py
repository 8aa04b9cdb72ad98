"""How other tools lay out a checkpoint: one table, and functions of keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dimlab.containers import Misnamed

Shape = tuple[int, ...]
OPTIONAL = "num_batches_tracked"  # absent from old files; evaluation mode never reads it
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def unwrapped(key: str) -> str:
    """Leave out what torch.compile, FSDP and activation checkpointing put into a key.

    Parameters
    ----------
    key : str
        Dotted.

    Returns
    -------
    str
        As the module was written.

    Examples
    --------
    >>> unwrapped("model.layer1._fsdp_wrapped_module.0._orig_mod.conv1.weight")
    'model.layer1.0.conv1.weight'
    """
    for each in WRAPPERS:
        key = key.replace(each, "")
    return key


@dataclass(frozen=True)
class Spelling:
    """How a tool writes the encoder's own keys.

    Parameters
    ----------
    name : str
        In words.
    parts : dict of str to str
        First part of a key, and what stands there instead.
    words : dict of str to str
        Other parts, and what stands there instead.
    stem_relu : bool
        Whether a module of these keys has a ReLU behind its first BatchNorm.
    """

    name: str
    parts: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    stem_relu: bool = True

    def of(self, key: str) -> str:
        """Spell a key.

        Parameters
        ----------
        key : str
            As the encoder has it.

        Returns
        -------
        str
            As the file has it.

        Examples
        --------
        >>> SPELLINGS["lightly-sequential"].of("layer2.0.downsample.0.weight")
        '3.0.shortcut.0.weight'
        """
        first, *rest = key.split(".")
        return ".".join(
            [self.parts.get(first, first), *(self.words.get(each, each) for each in rest)]
        )


def _numbered(layer1: int) -> dict[str, str]:
    return {"conv1": "0", "bn1": "1"} | {f"layer{n}": str(layer1 + n - 1) for n in (1, 2, 3, 4)}


_SHORTCUT = {"downsample": "shortcut"}
SPELLINGS = {
    "names": Spelling("the encoder's own names"),
    "torchvision-sequential": Spelling(
        "Sequential of conv1, bn1, relu, maxpool, layer1 to layer4", _numbered(4)
    ),
    "sequential-without-pooling": Spelling(
        "Sequential of conv1, bn1, relu, layer1 to layer4, which leaves out the max-pooling",
        _numbered(3),
    ),
    "lightly-names": Spelling("names with shortcut for downsample", words=_SHORTCUT),
    "lightly-sequential": Spelling(
        "Sequential of conv1, bn1, layer1 to layer4, which leaves out the stem's ReLU (a function "
        "call in lightly's ResNet); shortcut for downsample",
        _numbered(2), _SHORTCUT, stem_relu=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A way in which a tool writes checkpoints.

    Parameters
    ----------
    name : str
        What ``layout=`` and ``--layout`` call it.
    containers : tuple of str
        Where the mapping of keys to tensors lies, dotted; empty: the file is that mapping.
    prefixes : str
        Regular expression of all that may stand before the encoder's keys there.
    spellings : tuple of str
        Which of `SPELLINGS`.
    marks : tuple of str
        Keys of the file, one of which must be there.
    why : str
        What tells this layout, as a sentence.
    """

    name: str
    containers: tuple[str, ...]
    prefixes: str
    spellings: tuple[str, ...]
    marks: tuple[str, ...]
    why: str

    def fits(self, container: str, prefix: str, spelling: str, marks: Iterable[str]) -> bool:
        """Whether the encoder lies where this layout has it.

        Parameters
        ----------
        container, prefix, spelling : str
            Where it lies.
        marks : iterable of str
            Keys of the file.

        Returns
        -------
        bool
            Whether all four agree.
        """
        known = set(marks)
        return (
            ("*" in self.containers or container in self.containers)
            and re.fullmatch(self.prefixes, prefix) is not None
            and spelling in self.spellings
            and (not self.marks or any(each in known for each in self.marks))
        )


_ALL = tuple(SPELLINGS)
_PLAIN = (
    *("state_dict", "model", "net", "encoder", "backbone", "network", "module", "weights"),
    *("model_state_dict", "model_state", "net_state_dict", "encoder_state_dict"),
)
_PART = r"((model|net|network|encoder|backbone|trunk|feature_extractor|resnet|f)\.)"
_EMA = ("state_dict_ema", "model_ema", "ema", "ema_model", "ema_state_dict", "model_ema_state_dict")

LAYOUTS = (
    Layout("dimlab", ("network",), r"encoder\.", ("names",), ("mask_logits",),
           "dimlab train keeps the encoder under network.encoder, beside the mask's logits."),
    Layout("metamask", ("state_dict",), r"(backbone|resnet_simsiam_?\.backbone)\.",
           ("lightly-sequential",), ("state_dict.auto_mask.mask", "state_dict.resnet_simsiam_"),
           "The official MetaMask code keeps its mask under auto_mask.mask, its backbone also "
           "under resnet_simsiam, and the virtual step's copy under resnet_simsiam_."),
    Layout("vissl", ("classy_state_dict.base_model.model.trunk", "base_model.model.trunk"),
           r"(_feature_blocks\.|base_model\._feature_blocks\.)?", ("names",), (),
           "VISSL keeps the trunk under classy_state_dict.base_model.model.trunk."),
    Layout("moco", ("state_dict", "model", ""),
           rf"(module\.)?(model\.)?(encoder_[qk]|base_encoder|(momentum|online|target)_\w+)\.{_PART}*",
           _ALL, (), "MoCo keeps the trained encoder under encoder_q and its moving average under "
           "encoder_k; others call them online and target."),
    Layout("dino", ("teacher", "student", "state_dict", "model", ""),
           r"(module\.)?((teacher|student)(_backbone)?\.)?(module\.)?(model\.)?(backbone\.)?",
           _ALL, ("teacher", "student", "state_dict.teacher", "state_dict.teacher_backbone"),
           "DINO keeps a teacher, which its authors evaluate, and a student."),
    Layout("ema", ("*",),
           rf"(module\.)*((ema|model_ema|ema_model|ema_backbone)\.)?(module\.)*{_PART}*",
           _ALL, _EMA + tuple(f"state_dict.{each}" for each in _EMA),
           "The file keeps a moving average (EMA) of the weights."),
    Layout("openmmlab", ("state_dict",),
           r"(module\.)?(backbone|encoder|momentum_encoder\.module\.0)\.", ("names",), ("meta",),
           "OpenMMLab keeps meta beside state_dict, and backbone, neck, head."),
    Layout("lightning", ("state_dict",), r"([A-Za-z]\w*\.){0,4}", _ALL,
           ("pytorch-lightning_version", "hyper_parameters", "global_step"),
           "Lightning keeps state_dict beside its version, hyper-parameters and loop state."),
    Layout("ddp", ("", *_PLAIN), rf"(module\.)+{_PART}*", _ALL, (),
           "DistributedDataParallel puts module. before every key."),
    Layout("container", _PLAIN, rf"{_PART}*", _ALL, (),
           "A training script keeps the weights under one key of a dict."),
    Layout("bare", ("",), rf"{_PART}*", _ALL, (), "The file is the encoder's state dict itself."),
    Layout("other", ("*",), r".*", _ALL, (),
           "No tool is known by this prefix: its keys and shapes alone tell."),
)  # fmt: skip
NAMES = tuple(each.name for each in LAYOUTS)

BRANCHES = {  # from the one taken first; a prefix without any of these words is online
    "teacher": {"teacher", "teacher_backbone", "teacher_encoder"},
    "ema": {*_EMA, "ema_backbone", "ema_encoder", "averaged_model"},
    "online": {"encoder_q", "online", "online_encoder", "online_network", "base_encoder"},
    "student": {"student", "student_backbone", "student_encoder"},
    "momentum": {"encoder_k", "momentum_encoder", "momentum_backbone", "backbone_momentum"}
    | {"target", "target_encoder", "target_network", "momentum", "encoder_momentum"},
    "trial": {"resnet_simsiam_"},
}
RULE = "the branch that its authors evaluate: teacher, moving average, online, student, momentum"


@dataclass(frozen=True)
class Candidate:
    """A place in a file where the encoder may lie.

    Parameters
    ----------
    prefix : str
        What stands before the encoder's keys, container included.
    spelling : str
        How they are spelled.
    found : dict of str to str
        The encoder's key, and the file's, where shapes agree.
    mismatched : dict of str to str
        Where they do not.
    missing : tuple of str
        Keys of the encoder that are not there.
    unexpected : tuple of str
        Keys of the file inside the encoder's parts that no key of the encoder explains.
    beside : tuple of str
        Keys of the file under the prefix in no part of the encoder.
    """

    prefix: str
    spelling: str
    found: dict[str, str]
    mismatched: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    beside: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every key of the encoder is there with its shape, and no other in its parts."""
        return not (self.mismatched or self.missing or self.unexpected)

    @property
    def score(self) -> float:
        """Keys that agree, as a share of all that the encoder or its place in the file has."""
        n_found = sum(not key.endswith(OPTIONAL) for key in self.found)
        others = len(self.mismatched) + len(self.unexpected)
        others += sum(not key.endswith(OPTIONAL) for key in self.missing)
        return n_found / max(n_found + others, 1)

    @property
    def branch(self) -> str:
        """Which of several copies of the encoder this is."""
        return branch_of(self.prefix)


def branch_of(prefix: str) -> str:
    """Say which of several copies of an encoder stands under a prefix.

    Parameters
    ----------
    prefix : str
        Dotted.

    Returns
    -------
    str
        A key of `BRANCHES`.

    Examples
    --------
    >>> branch_of("state_dict.module.encoder_k."), branch_of("state_dict.backbone.")
    ('momentum', 'online')
    """
    parts = {part.removesuffix("_state_dict") for part in prefix.split(".")}
    parts |= set(prefix.split("."))
    return next((name for name, words in BRANCHES.items() if words & parts), "online")


def candidates(
    shapes: Mapping[str, Shape], wanted: Mapping[str, Shape], spellings: Iterable[str] = _ALL
) -> list[Candidate]:
    """Find every place where a file has keys of an encoder.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Keys of the file.
    wanted : mapping of str to tuple of int
        Keys of the encoder.
    spellings : iterable of str
        Names in `SPELLINGS`.

    Returns
    -------
    list of Candidate
        The best first. A prefix is one because it stands before a key of the encoder's; nothing is
        guessed.

    Examples
    --------
    >>> [found] = candidates({"net.conv1.weight": (4, 3)}, {"conv1.weight": (4, 3)}, ["names"])
    >>> found.prefix, found.is_whole
    ('net.', True)
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in spellings:
        spelled = {SPELLINGS[name].of(key): key for key in wanted}
        if name != "names" and list(spelled.values()) == list(spelled):
            continue  # an encoder that this spelling leaves as it is
        for key in shapes:
            rest, prefix = unwrapped(key), ""
            while rest:
                if rest in spelled:
                    found.setdefault((prefix, name), {}).setdefault(spelled[rest], key)
                first, dot, rest = rest.partition(".")
                prefix += first + dot
    most = max(map(len, found.values()), default=0)
    every = [
        placed(*at, place, shapes, wanted)
        for at, place in found.items()
        if 2 * len(place) >= most  # with fewer keys it is no copy of the encoder's: save the time
    ]
    return sorted(every, key=lambda each: (-each.score, len(each.prefix), each.prefix))


def placed(
    prefix: str,
    spelling: str,
    place: Mapping[str, str],
    shapes: Mapping[str, Shape],
    wanted: Mapping[str, Shape],
) -> Candidate:
    """Compare a place in a file with an encoder.

    Parameters
    ----------
    prefix, spelling : str
        As in `Candidate`.
    place : mapping of str to str
        The encoder's keys, and the file's.
    shapes, wanted : mapping of str to tuple of int
        Keys of the file and of the encoder.

    Returns
    -------
    Candidate
        What agrees and what does not.
    """
    there = {key: place[key] for key in wanted if key in place}
    agree = {
        key: name
        for key, name in there.items()
        if shapes[name] == wanted[key] or (key.endswith(OPTIONAL) and shapes[name] in ((), (1,)))
    }
    parts = {SPELLINGS[spelling].of(first) for first in {key.split(".")[0] for key in wanted}}
    taken, counted = set(place.values()), any(key.endswith(OPTIONAL) for key in place)
    under = {name: unwrapped(name) for name in shapes if name not in taken}
    first = {
        name: plain[len(prefix) :].split(".")[0]
        for name, plain in under.items()
        if plain.startswith(prefix)
    }
    return Candidate(
        prefix,
        spelling,
        agree,
        {key: name for key, name in there.items() if key not in agree},
        tuple(key for key in wanted if key not in place and _is_missed(key, place, counted)),
        tuple(name for name, part in first.items() if part in parts),
        tuple(name for name, part in first.items() if part not in parts),
    )


def _is_missed(key: str, place: Mapping[str, str], counted: bool) -> bool:
    """Whether a key should be there; a count of batches only where its whole layer is missing."""
    if not key.endswith(OPTIONAL):
        return True
    return counted and key.replace(OPTIONAL, "running_mean") not in place


def layout_of(candidate: Candidate, containers: Iterable[str], marks: Iterable[str]) -> Layout:
    """Name the layout of a place.

    Parameters
    ----------
    candidate : Candidate
        The place.
    containers : iterable of str
        Dotted names of the file's mappings; the empty name is the file itself.
    marks : iterable of str
        Keys of the file.

    Returns
    -------
    Layout
        The first row of `LAYOUTS` that fits.
    """
    container, prefix = split_prefix(candidate.prefix, containers)
    marks = list(marks)
    return next(each for each in LAYOUTS if each.fits(container, prefix, candidate.spelling, marks))


def split_prefix(prefix: str, containers: Iterable[str]) -> tuple[str, str]:
    """Split a prefix into the mapping where the keys lie and what stands before them there.

    Parameters
    ----------
    prefix : str
        Dotted.
    containers : iterable of str
        Dotted names of mappings.

    Returns
    -------
    tuple of str
        Container and prefix.

    Examples
    --------
    >>> split_prefix("state_dict.backbone.", ["", "state_dict"])
    ('state_dict', 'backbone.')
    """
    fitting = [each for each in containers if each and prefix.startswith(f"{each}.")]
    container = max(fitting, key=len, default="")
    return container, prefix.removeprefix(f"{container}." if container else "")


def narrowed(
    found: list[Candidate],
    branch: str | None,
    layout: str | None,
    containers: Iterable[str],
    marks: Iterable[str],
) -> list[Candidate]:
    """Keep the candidates of a branch and a layout that a person names.

    Parameters
    ----------
    found : list of Candidate
        At least one.
    branch : str or None
        One of `BRANCHES`, or a part of the prefix.
    layout : str or None
        One of `NAMES`.
    containers, marks
        As in `layout_of`.

    Returns
    -------
    list of Candidate
        At least one.

    Raises
    ------
    Misnamed
        If no copy is that branch.
    ValueError
        If the file has another layout.
    """
    containers, marks, kept = list(containers), list(marks), found
    if layout is not None:
        kept = [each for each in kept if layout_of(each, containers, marks).name == layout]
        if not kept:
            best = layout_of(found[0], containers, marks).name
            raise ValueError(f"layout must be {best!r} for this file; got {layout!r}.")
    if branch is not None:
        there = kept
        kept = [
            each
            for each in kept
            if branch in (each.branch, *BRANCHES[each.branch])
            or branch.strip(".") in each.prefix.strip(".").split(".")
            or branch.strip(".") == each.prefix.strip(".")
        ]  # fmt: skip
        if not kept:
            first = [each for each in there if each.score >= there[0].score]
            known = dict.fromkeys(f"{each.branch} ({each.prefix or 'no prefix'})" for each in first)
            raise Misnamed(f"branch must be one of {', '.join(known)}; got {branch!r}.")
    return kept
