"""Options of a command, derived from the signature and the numpydoc text of a Python function.

A new argument of a probe is a new option of its command, and nothing is written here. Arguments
that no command line can give (arrays, results, callables) are left out by their annotation.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import dimlab
from dimlab.cli.idle import refuse_idle
from dimlab.refusals import Refusal

INPUT, MEASURE, OUTPUT, ADVANCED = "Input", "What to measure", "Output", "Advanced"
MANY = 12  # a command with more options shows those in `RARE` in a panel of their own
RARE = {
    *("device", "seed", "memory", "quiet", "temperature", "penalty", "fill", "fit_range"),
    *("n_blocks", "n_folds", "n_bootstrap", "n_permuted", "n_random", "save_moments", "array"),
    *("figure_format", "max_train", "layout", "branch", "allow_partial", "trust_pickle"),
    *("resize", "crop", "depth", "image_column", "label_column", "workers", "skip_bad"),
    *("on", "by_order", "image_size", "max_queries", "continuous", "period", "masked", "k"),
    *("clusters", "resample", "alone", "n_points", "n_permutations", "in_distribution", "fail_if"),
    *("stem", "encoder_option", "allow_untrained", "hypergradient", "mask_learning_rate"),
    *("precision", "validate_every", "fields", "overwrite", "tensorboard", "meta_every"),
    *("target_kind",),
}
LONG = {
    "n_masks",
    "n_splits",
    "n_points",
    "n_samples",
    "n_dimensions",
    "n_worlds",
}  # their options keep the n_ of their names
_FLAGS = {"target_kind": "--target"}
_TYPES: dict[str, Any] = {
    "bool": bool, "int": int, "float": float, "str": str, "Path": Path,
    "ReaderLike": str, "ClustersLike": str, "GroupsLike": str,
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """An option of a command; an argument, where it has no flag."""

    name: str
    flag: str
    type: Any
    help: str
    default: Any = None
    panel: str = MEASURE
    read: Callable[[Any], Any] | None = None  # checks a value, and turns text into one
    metavar: str | None = None

    def parameter(self, panel: str) -> inspect.Parameter:
        """Return the parameter that typer makes the option of."""
        more: dict[str, Any] = {"help": self.help, "rich_help_panel": panel}
        more |= {"metavar": self.metavar or ("<str>" if self.type == list[str] else None)}
        if self.read is not None:
            read = self.read
            more["callback"] = lambda value: value if value in (None, []) else read(value)
        info = typer.Option(self.flag, **more) if self.flag else typer.Argument(**more)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.default is ... else self.default,
            annotation=Annotated[self.type | None if self.default is None else self.type, info],
        )


class PanelledCommand(TyperCommand):
    """A command whose help lists its options panel by panel, in plain text of any width."""

    titles: Mapping[str, str] = MappingProxyType({})  # of panels that are called otherwise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the files as they are named in the panels."""
        files = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(each.metavar) for each in files)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        panels: dict[str, list[Any]] = {INPUT: [], MEASURE: [], OUTPUT: [], ADVANCED: []}
        each: Any
        for each in self.get_params(ctx):
            panel = getattr(each, "rich_help_panel", None) or OUTPUT
            is_file = each.param_type_name == "argument"
            record = (each.metavar, each.help) if is_file else each.get_help_record(ctx)
            panels[panel].append(record)
        for panel, shown in panels.items():
            if shown:
                with formatter.section(self.titles.get(panel, panel)):
                    formatter.write_dl(shown, col_max=26)


def command_of(
    name: str,
    run: Callable[[dict[str, Any]], None],
    options: Iterable[Option],
    text: str,
    *,
    task: str = MEASURE,
) -> TyperCommand:
    """Make a command that calls ``run`` with its options; ``task`` titles the panel of its own."""
    options = list(options)
    many = sum(1 for each in options if each.flag) > MANY
    made = [
        each.parameter(ADVANCED if many and each.name in RARE else each.panel) for each in options
    ]

    def call(**values: Any) -> None:
        refuse_idle(options, values)
        run(values)

    annotations = {each.name: each.annotation for each in made}
    vars(call).update(__signature__=inspect.Signature(made), __annotations__=annotations)
    door = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"help_option_names": ["-h", "--help"]}
    text = re.sub(r"\s+Example:\s+", "\n\nExample: ", text)
    door.command(name, cls=PanelledCommand, help=text, context_settings=settings)(call)
    made_command: Any = typer.main.get_command(door)
    made_command.titles = {MEASURE: task}
    return made_command


def options_of(function: Callable[..., Any], leave_out: Iterable[str] = ()) -> Iterator[Option]:
    """Yield an option for each optional argument of a function that text can give."""
    left = set(leave_out)
    for each in inspect.signature(function).parameters.values():
        if each.name in left or (each.kind is not each.KEYWORD_ONLY and each.default is each.empty):
            continue
        kinds = _kinds(each.annotation)
        if not any(kind in _TYPES or _item(kind) for kind in kinds):
            continue
        yield _option(each, kinds, *described(function, each.name))


def field_options(kind: type, names: Iterable[str]) -> Iterator[Option]:
    """Yield an option for each named field of a class, with the docstring beneath it as help."""
    statements: Any = ast.parse(inspect.getsource(kind)).body
    for pair in pairwise(statements[0].body):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(name), annotation=ast.Name(of)),
                ast.Expr(ast.Constant(text)),
            ) if name in names:
                words = _first_sentence(" ".join(str(text).split()))
                yield Option(name, _flag_of(name), _TYPES[of], words)


def _kinds(annotation: Any) -> list[str]:
    """Return the types of a union as they are written; ``None`` is left out."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(typing|collections\.abc|pathlib)\.", "", text)
    return [each for each in re.split(r"\s*\|\s*(?![^\[]*\])", text) if each != "None"]


def _item(kind: str) -> str | None:
    """Return the type of a sequence's items, where text can give them."""
    found = re.fullmatch(r"(?:Sequence|list|tuple)\[(int|float|str|ReaderLike)\b.*\]", kind)
    return found[1] if found else None


def _flag_of(name: str) -> str:
    flag = f"--{name.removeprefix('n_') if name not in LONG else name}".replace("_", "-")
    return _FLAGS.get(name, flag)


def _option(
    argument: inspect.Parameter, kinds: list[str], type_text: str, help_text: str
) -> Option:
    name, default = argument.name, argument.default
    if default is argument.empty:
        default = ...
    flag = _flag_of(name)
    choices = re.findall(r'"([^"]+)"', (re.findall(r"\{(.*?)\}", type_text) or [""])[0])
    found = re.search(r">= (\d+)", help_text)
    least = int(found[1]) if found else None
    words = _first_sentence(help_text)
    unnamed = [each for each in choices if each not in words]
    words += f" One of: {', '.join(choices)}." if unnamed else ""
    item = next((each for each in map(_item, kinds) if each), None)
    made = Option(name, flag, str, words, default)
    choose, enough = one_of(name, choices), at_least(name, least)
    if item == "str" and not choices:
        return replace(made, type=list[str], default=None)
    if item is not None:
        shown = ",".join(map(str, default)) if isinstance(default, (list, tuple)) else default

        def read(text: str) -> Any:
            if item in ("str", "ReaderLike"):
                return list(map(choose, text.split(",")))
            if "str" in kinds and not re.fullmatch(r"[\s\d,]+", text):
                return choose(text)
            return list(map(enough, numbers_in(name, text, item)))

        return replace(made, default=shown, read=read)
    kind = next(_TYPES[each] for each in kinds if each in _TYPES)
    if kind is bool and default is not False:
        return replace(made, type=bool, flag=f"{flag}/--no-{flag.removeprefix('--')}")
    if choices and kind is str:
        return replace(made, read=choose)
    if kind in (int, float) and least is not None:
        return replace(made, type=kind, read=enough)
    return replace(made, type=kind)


def one_of(name: str, choices: Sequence[str]) -> Callable[[str], str]:
    """Return a function that refuses text that is not one of the choices, if there are choices."""

    def read(text: str) -> str:
        if choices and text not in choices:
            listed = ", ".join(map(repr, choices))
            raise Refusal(f"{name} must be one of {listed}; got {text!r}.")
        return text

    return read


def at_least(name: str, least: int | None) -> Callable[[float], float]:
    """Return a function that refuses numbers below ``least``, if it is given."""

    def read(value: float) -> float:
        if least is not None and value < least:
            raise Refusal(f"{name} must be >= {least}; got {value}.")
        return value

    return read


def numbers_in(name: str, text: str, kind: str = "float") -> list[Any]:
    """Read numbers, or whole numbers, separated by commas."""
    try:
        numbers = [float(each) for each in text.split(",")]
    except ValueError:
        raise Refusal(f"{name} must be numbers separated by commas; got {text!r}.") from None
    if kind == "float":
        return numbers
    if not all(math.isfinite(each) and each == int(each) for each in numbers):
        raise Refusal(f"{name} must be whole numbers separated by commas; got {text!r}.")
    return [int(each) for each in numbers]


def described(function: Callable[..., Any], name: str) -> tuple[str, str]:
    """Return what numpydoc says of an argument, its type and text, following "As in `ablate`."."""
    type_text, text = _arguments_of(function).get(name, ("", ""))
    other = re.match(r"As in `(\w+)`", text)
    if other:
        home = sys.modules.get(function.__module__)
        there = getattr(home, other[1], None) or getattr(dimlab, other[1])
        type_there, text = _arguments_of(there).get(name, ("", ""))
        type_text = type_there or type_text
    return type_text, text


def heading_of(target: str) -> Callable[..., Any]:
    """Return a function with the signature and docstring of another, and not its module."""
    module, _, name = target.partition(":")
    found = importlib.util.find_spec(module)
    tree = ast.parse(Path(str(found and found.origin)).read_text(encoding="utf-8"))
    (function,) = (
        each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name
    )
    alone = ast.Module([*ast.parse("from __future__ import annotations").body, function], [])
    function.body = function.body[:1]  # the docstring
    names: dict[str, Any] = {"__name__": module}
    exec(compile(alone, module, "exec"), names)
    return names[name]


def _arguments_of(function: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """Return the section "Parameters" of a docstring by the names of the arguments."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n[A-Z]\w+\n-+\n|\Z)", text, re.S | re.M)
    found: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"\n(?=\S)", section[1]) if section else ():
        head, _, body = entry.partition("\n")
        names, _, type_text = head.partition(" : ")
        for name in names.split(", "):
            found[name.strip()] = type_text, " ".join(body.split())
    return found


def _first_sentence(text: str) -> str:
    """Return what comes before the second sentence, without the marks of reStructuredText."""
    first = re.split(r"(?<=\.)\s+(?=[A-Z`\"])|(?<=\.\))\s+", text)[0]
    return re.sub(r"`+|\"", "", first)
