"""Results: a result says once what each of its fields is; table, summary and pages are derived.

A result is a frozen dataclass whose fields are made by `per` (an array with one entry a group, a
dimension, ...), `scalar` (an entry of the summary) and `detail` (neither). Properties marked
`column`, `entry` and `entries` stand among them; ``TABLES`` names methods that give further tables.
The order of definition is that of presentation::

    @dataclass(frozen=True, eq=False, repr=False, kw_only=True)
    class Cohesion(Result):
        \"\"\"How close the samples of a class lie in each dimension.\"\"\"

        n_samples: int = scalar("Number of samples.")
        spread: np.ndarray = per("dimension", "Mean spread within the classes.")

        n_tight = entry(lambda self: (self.spread < 0.1).sum(), doc="Spread below 0.1.")
"""

from __future__ import annotations

import base64
import html
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from dimlab.refusals import WrongType
from dimlab.result_file import LOADED, load_result, path_of, save_result
from dimlab.text import plain

ABSENT = object()  # the value of an `entry` or a `column` that is left out
_SECTIONS = r"^(?:Raises|Warns|Notes|References|Examples)\n-{3,}$"
_ROWS_SHOWN = 5
_LEVEL = 0.05  # of q-values of effects that are decided
_SHORT = 24  # characters of a value that stands in the one-line repr

ResultT = TypeVar("ResultT", bound="Result")


def per(
    axis: str,
    text: str,
    *,
    shape: str | None = None,
    column: str | bool = True,
    default: Any = MISSING,
) -> Any:
    """Declare an array with one entry an ``axis``; ``column`` renames or hides it in the table."""
    shape = shape or f"({axis[0].upper()},)"
    metadata = {"text": text, "axis": axis, "shape": shape, "column": column}
    return field(default=default, metadata=metadata)


def scalar(
    text: str, *, key: str | None = None, optional: bool = False, default: Any = MISSING
) -> Any:
    """Declare an entry of the summary; an ``optional`` one is left out where it is empty."""
    return field(default=default, metadata={"text": text, "key": key, "optional": optional})


def detail(text: str, *, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """Declare a field that stands neither in the table nor in the summary."""
    given: dict[str, Any] = {"default": default, "default_factory": default_factory}
    return field(**given, metadata={"text": text, "detail": True})


class entry(property):
    """A property that is an entry of the summary."""


class entries(property):
    """A property whose items are entries of the summary."""


class column(property):
    """A property that is a column of the table, or several by name."""


@dataclass(frozen=True)
class Verdict:
    """An answer to one question, with its numbers and the rule that gave it.

    Parameters
    ----------
    question : str
        What was asked.
    answer : str
        ``yes``, ``no`` or ``undecided``.
    because : str
        The numbers.
    rule : str
        Which numbers would have given which answer.
    dimensions : tuple of int
        Dimensions that the answer concerns; empty where it concerns all or none.
    good : {"no", "yes", ""}
        The answer that speaks for the representation or its mask; empty: neither does.
    """

    question: str
    answer: str
    because: str
    rule: str
    dimensions: tuple[int, ...] = ()
    good: str = "no"

    @property
    def tone(self) -> str:
        """``good``, ``bad`` or ``open``: undecided, or neither answer is better."""
        if not self.good or self.answer == "undecided":
            return "open"
        return "good" if self.answer == self.good else "bad"


class Result:
    """What results share: table, summary, one-line repr, HTML, figure and a file format."""

    ROWS: ClassVar[str] = ""  # axis of the table; empty: that of the first array
    NAME: ClassVar[str] = ""  # in a report; empty: that of the class, in lower case
    HEADLINE: ClassVar[tuple[str, ...]] = ()  # entries of the one-line repr; empty: the first ones
    EFFECT: ClassVar[tuple[str, ...]] = ()  # column of effects, and of q-values: which rows matter
    TABLES: ClassVar[tuple[tuple[str, str], ...]] = ()  # names of further tables, their methods
    # columns of a report's table of all dimensions: name there, name here, title; None: all of them
    DIMENSIONS: ClassVar[tuple[tuple[str, str, str], ...] | None] = None
    _parts: ClassVar[tuple[tuple[str, Any], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the parts in the order of definition and document the fields."""
        super().__init_subclass__(**kwargs)
        own = [
            (name, each)
            for name, each in vars(cls).items()
            if isinstance(each, (entry, entries, column))
            or (isinstance(each, Field) and each.metadata)
        ]
        replaced = {name for name, _ in own}
        cls._parts = (*(each for each in cls._parts if each[0] not in replaced), *own)
        cls.__doc__ = _documented(cls)
        LOADED[path_of(cls)] = cls

    def _values(self) -> Iterator[tuple[str, Any, Any]]:
        """Give the name, declaration and value of each part."""
        for name, part in self._parts:
            yield name, part, getattr(self, name)

    @classmethod
    def keys(cls) -> list[str] | None:
        """Return the keys that summaries may have; None where only a result can say."""
        if cls.summary is not Result.summary or any(isinstance(p, entries) for _, p in cls._parts):
            return None
        return [
            name if isinstance(part, entry) else part.metadata["key"] or name
            for name, part in cls._parts
            if isinstance(part, entry) or (isinstance(part, Field) and "key" in part.metadata)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            An entry for each number or text of the result that is not an array; numbers that are
            not finite are None.
        """
        return plain(self._numbers())

    def _numbers(self) -> dict[str, Any]:
        """Return the entries of the summary as they are."""
        found: dict[str, Any] = {}
        for name, part, value in self._values():
            if isinstance(part, entry):
                if value is not ABSENT:
                    found[name] = value
            elif isinstance(part, entries):
                found |= value
            elif isinstance(part, Field) and "key" in part.metadata:
                if not (part.metadata["optional"] and _is_empty(value)):
                    found[part.metadata["key"] or name] = value
        return found

    def to_frame(self) -> Any:
        """Return the table of the result.

        Returns
        -------
        pandas.DataFrame
            One row an entry of the first axis; one column an array that has this axis alone.
        """
        import pandas as pd

        rows = axis_of(self)
        columns: dict[str, Any] = {}
        for name, part, value in self._values():
            if isinstance(part, column):
                if value is not ABSENT:
                    columns |= value if isinstance(value, Mapping) else {name: value}
            elif isinstance(part, Field) and "axis" in part.metadata and value is not None:
                named = part.metadata["column"]
                if part.metadata["axis"] == rows and named and np.ndim(value) == 1:
                    columns[name if named is True else named] = value
        return pd.DataFrame(columns)

    def tables(self) -> dict[str, Any]:
        """Return the tables that stand beside the frame.

        Returns
        -------
        dict of str to pandas.DataFrame
            By name; those that there is nothing to say in are left out.
        """
        found = {name: getattr(self, method)() for name, method in self.TABLES}
        return {name: frame for name, frame in found.items() if frame is not None}

    def parts(self) -> dict[str, Result]:
        """Return the results within this one.

        Returns
        -------
        dict of str to Result
            By the names of their fields.
        """
        values = ((name, getattr(self, name)) for name, _ in self._parts)
        return {name: value for name, value in values if isinstance(value, Result)}

    def __repr__(self) -> str:
        """Return one line: the class and the first short entries of the summary."""
        short = {
            name: f"{value:.4g}" if isinstance(value, float) else repr(value)
            for name, value in self.summary().items()
            if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= _SHORT)
        }
        names = [name for name in self.HEADLINE or list(short)[:6] if name in short]
        return f"{type(self).__name__}({', '.join(f'{name}={short[name]}' for name in names)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the answer, the five rows that matter and the figure."""
        answer = verdict_of(self)
        said = [] if answer is None else [f"{answer.question} {answer.answer}. {answer.because}"]
        words = "".join(f"<p>{html.escape(each)}</p>" for each in (*said, repr(self)))
        rows = self._leading().head(_ROWS_SHOWN)
        table = rows.to_html(index=False, border=0, float_format="{:.4g}".format)
        wide = f'<div style="overflow-x: auto; white-space: nowrap">{table}</div>'
        return words + wide + self._inline_figure()

    def _leading(self) -> Any:
        """Return the table with the largest effects first, those that are decided before others."""
        frame = self.to_frame()
        if not self.EFFECT:
            return frame
        effect, *q_values = self.EFFECT
        keys = {"size": -frame[effect].abs()}
        for name in q_values:
            keys = {"open": ~(frame[name] <= _LEVEL), **keys}
        return frame.loc[frame.assign(**keys).sort_values(list(keys), kind="stable").index]

    def _inline_figure(self) -> str:
        """Return the figure as an image within HTML; nothing without a figure or matplotlib."""
        figures = importlib.import_module("dimlab.figures")  # a look upwards, at call time
        plot = getattr(figures, f"plot_{in_lower_case(type(self))}", None)
        if plot is None:
            return ""
        try:
            drawn = figures.house.picture_of(plot, self, "png", dpi=80)
        except ImportError:
            return ""
        data = base64.b64encode(drawn).decode()
        return f'<img alt="{in_lower_case(type(self))}" src="data:image/png;base64,{data}">'

    def plot(self, ax: Any = None, **kwargs: Any) -> Any:
        """Draw the result with the figure of its name, as `plot_ablation` draws an `Ablation`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Passed on to the figure's function.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        figures = importlib.import_module("dimlab.figures")  # a look upwards, at call time
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        return getattr(figures, f"plot_{in_lower_case(type(self))}")(self, ax=ax, **kwargs)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result with all its arrays.

        Parameters
        ----------
        path : path
            Ends in ``.result.npz``. An existing file is replaced by a whole new one.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ValueError
            If the name has another ending.
        """
        return save_result(path, self)

    @classmethod
    def load(cls: type[ResultT], path: str | os.PathLike[str]) -> ResultT:
        """Read a result that ``save`` wrote; no code in the file is ever run.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        Result
            Equal to the one saved.

        Raises
        ------
        TypeError
            If the file holds a result of another class.
        """
        found = load_result(path)
        if not isinstance(found, cls):
            raise WrongType(
                f"{Path(path).name} must hold a result of class {cls.__name__}; got "
                f"{type(found).__name__}. Read it with {type(found).__name__}.load."
            )
        return found


def verdict_of(result: Any) -> Verdict | None:
    """Return the verdict on a result by the module of its class, or None."""
    verdict = getattr(sys.modules[type(result).__module__], "verdict", None)
    return None if verdict is None else verdict(result)


def in_lower_case(kind: type) -> str:
    """Return a class's name as figures and files have it, mask_evolution for MaskEvolution."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def name_of(kind: type) -> str:
    """Return the name of a class's result in a report."""
    return getattr(kind, "NAME", "") or in_lower_case(kind)


def axis_of(result: Result) -> str:
    """Return what the rows of a result's table are."""
    axes = (
        part.metadata["axis"]
        for _, part, value in result._values()
        if isinstance(part, Field) and "axis" in part.metadata and value is not None
    )
    return result.ROWS or next(axes, "")


def titles_of(kind: type[Result]) -> dict[str, str]:
    """Return the first clause of what is declared of each column of a result's table."""
    return {
        name if each.metadata["column"] is True else each.metadata["column"]: re.split(
            r"[.:;] ", each.metadata["text"]
        )[0].rstrip(".")
        for name, each in kind._parts
        if isinstance(each, Field) and each.metadata.get("column")
    }


def _documented(cls: type[Result]) -> str:
    """Put the declared fields, and where the sources are, behind the summary of a docstring."""
    text = inspect.cleandoc(vars(cls).get("__doc__") or "")
    declared = [(name, each) for name, each in cls._parts if isinstance(each, Field)]
    if not declared or "Parameters\n---" in text:
        return text
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations |= vars(base).get("__annotations__", {})
    lines = ["Parameters", "----------"]
    for name, each in declared:
        kind = annotations.get(name, "")
        kind = kind.__name__ if isinstance(kind, type) else str(kind).replace("numpy.", "np.")
        shape = each.metadata.get("shape", "")
        kind = kind.replace("np.", "").replace(
            "ndarray", f"ndarray of shape {shape}" if shape else "ndarray"
        )
        lines += [f"{name} : {kind.replace(' | ', ' or ')}", f"    {each.metadata['text']}"]
    if "References\n---" not in text:
        probe = cls.__module__.rpartition(".")[2]
        lines += ["", "References", "----------", f"Those of `{probe}`, which measures it."]
    first = re.search(_SECTIONS, text, re.M)
    place = first.start() if first else len(text)
    parts = (text[:place].rstrip(), "\n".join(lines), text[place:])
    return "\n\n".join(filter(None, parts))


def _is_empty(value: Any) -> bool:
    return value is None or (not isinstance(value, (int, float)) and len(value) == 0) or value == 0


def numbers_of(result: Any) -> dict[str, Any]:
    """Return a result's summary in which infinite numbers stay: gates compare with them."""
    declared = isinstance(result, Result) and type(result).summary is Result.summary
    return plain(result._numbers(), is_known=lambda x: x == x) if declared else result.summary()
