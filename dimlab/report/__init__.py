"""The report: one self-contained HTML file, with every number beside it as CSV and JSON."""

from __future__ import annotations

import base64
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.answers import ANSWERS, DimensionTable, answers_of
from dimlab.figures.house import picture_of
from dimlab.io.files import DAMAGED, digest, json_of, locked, write_files
from dimlab.refusals import Refusal
from dimlab.report.dimensions import dimensions_of
from dimlab.report.provenance import RECORD, WRITTEN
from dimlab.result import Verdict, in_lower_case, numbers_of, verdict_of
from dimlab.result_file import OURS, SUFFIX, load_result, result_bytes
from dimlab.text import in_words, json_text, visible

__all__ = ["redraw_report", "write_report", "write_result"]

FORMATS = ("svg", "png", "pdf")
CONTENTS = "report.json"


def write_report(
    folder: str | os.PathLike[str],
    results: Mapping[str, Any],
    *,
    title: str = "dimlab report",
    headline: Sequence[str] = (),
    not_measured: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    figure_format: str = "svg",
) -> Path:
    """Write ``report.html`` and, beside it, each result whole and as CSV, JSON and figures.

    Parameters
    ----------
    folder : path
        Made if missing. Files of the same names are replaced; those that an older report wrote, and
        this one does not, leave with them, unless somebody has changed them since.
    results : mapping of str to result
        Results with ``to_frame()`` and ``summary()``; figures are all ``plot_<class name>...`` of
        ``dimlab.figures``. The keys name the files.
    title : str, default="dimlab report"
        Title of the page.
    headline : sequence of str
        Sentences that stand first, before the verdicts.
    not_measured : mapping of str to str, optional
        Sentences on probes that could not run, by name, at the end of the page; by default those of
        an examination's results.
    provenance : mapping, optional
        Command, versions, seed, data: shown at the foot and written to ``provenance.json``, with
        the hashes of all files.
    figure_format : {"svg", "png", "pdf"}, default="svg"
        Of the figures beside the page, which itself holds SVG.

    Returns
    -------
    Path
        ``folder/report.html``: one file without any network request. The same inputs give the same
        bytes but for the provenance.

    Raises
    ------
    ValueError
        If there is no result, or the format is unknown.
    TypeError
        If a summary or the provenance holds what JSON cannot.
    OSError
        If the folder cannot be written.

    Notes
    -----
    One answer a dimension comes first (see `dimension_table`), with a table of all dimensions to
    sort and filter; then verdicts, each with the rule that gave it; then the figures and numbers of
    each result. Results that are dimlab's own are kept whole as ``<name>.result.npz``:
    `redraw_report` makes the page of them again.

    Examples
    --------
    >>> import tempfile
    >>> from dimlab.mask import MaskTrace
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(folder, {"trace": trace}, title="One mask", provenance={"seed": 0})
    ...     "One mask" in page.read_text(encoding="utf-8")
    ...     sorted(path.name for path in page.parent.glob("trace*"))
    True
    ['trace.csv', 'trace.json', 'trace.result.npz', 'trace.svg']
    """
    said = getattr(results, "not_measured", {}) if not_measured is None else not_measured
    order = {
        "title": title,
        "headline": list(headline),
        "results": list(results),
        "not_measured": list(said.values()),
    }
    contents = _contents(results, order, provenance or {}, figure_format)
    written = write_files(folder, contents, outdated=lambda: _written_before(Path(folder)))
    return written["report.html"]


def _contents(
    results: Mapping[str, Any],
    order: dict[str, Any],
    provenance: Mapping[str, Any],
    figure_format: str,
    before: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """Return all files of a report by name; ``report.json`` lists them and older ones that stay."""
    import jinja2

    if not results:
        raise Refusal("results must hold at least one result; got none.")
    check_format(figure_format)
    sections = []
    contents: dict[str, bytes] = {}
    answers = answers_of(results)
    shown = {**({} if answers is None else {DimensionTable.NAME: answers}), **results}
    for name, result in shown.items():
        files = _files_of(name, result, figure_format)
        sections.append(_section(name, result, files))
        contents |= dict(files.values())
    frame, titles = dimensions_of(shown)
    if len(frame):
        contents["dimensions.csv"] = _encoded(frame.to_csv(index=False))
    verdicts = verdicts_of(results)
    if verdicts:
        contents["verdicts.json"] = _json([asdict(each) for each in verdicts])
    # the others are of every report
    order["files"] = {**(before or {}), **{name: digest(each) for name, each in contents.items()}}
    contents[CONTENTS] = _json(order)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dimlab.report", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("template.html").render(
        title=order["title"],
        headline=order["headline"],
        verdicts=verdicts,
        named=lambda dimensions: in_words(list(dimensions)),
        answers=None if answers is None else {**sections[0], "kinds": kinds_of(answers)},
        sections=sections if answers is None else sections[1:],
        not_measured=order["not_measured"],
        columns=[
            {"name": name, "title": text, "numeric": frame[name].dtype.kind in "fiu"}
            for name, text in titles.items()
        ],
        rows=[[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)],
        provenance=dict(provenance),
    )
    contents["report.html"] = visible(page).encode()
    written = {**(before or {}), **{name: digest(each) for name, each in contents.items()}}
    contents["provenance.json"] = _json({**provenance, WRITTEN: written} if provenance else {})
    contents[CONTENTS] = contents.pop(CONTENTS)  # the manifest is written last
    return contents


def kinds_of(answers: DimensionTable) -> dict[str, str]:
    """Name the dimensions of each answer, outliers and those needed for a task, with a count."""
    members = {kind: answers.dimensions_of(kind).tolist() for kind in ANSWERS}
    if answers.outlier is not None:
        members["outlier"] = np.flatnonzero(answers.outlier).tolist()
    members |= {name.replace("_", " "): needed for name, needed in answers.needs.items()}
    return {f"{kind} ({len(each)})": in_words(each) for kind, each in members.items() if len(each)}


def verdicts_of(results: Mapping[str, Any]) -> list[Verdict]:
    """Return the answers of the results and of their parts, each class once, in their order."""
    found: dict[type, Any] = {}
    for result in results.values():
        for each in (result, *getattr(result, "parts", dict)().values()):
            found.setdefault(type(each), each)
    return [answer for each in found.values() if (answer := verdict_of(each)) is not None]


def _written_before(folder: Path) -> dict[str, str]:
    """Files that the report in a folder lists, with digests; none where it is damaged."""
    # a single result that was written there since is no part of the report
    try:
        listed = dict(json_of((folder / CONTENTS).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):  # no report, or one of old
        return {}
    single = [each.name.removesuffix(RECORD) for each in folder.glob(f"?*{RECORD}")]
    stems = tuple(f"{name}{mark}" for name in single for mark in ".-")
    return {
        name: each
        for name, each in listed.items()
        if Path(name).name == name and not name.startswith((".", *stems)) and isinstance(each, str)
    }


def redraw_report(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    figure_format: str = "svg",
) -> Path:
    """Make a report again from the results that `write_report` kept, without measuring anything.

    Parameters
    ----------
    folder : path
        Of a report.
    out : path, optional
        Where the new one goes; the same folder by default.
    figure_format : {"svg", "png", "pdf"}, default="svg"
        As in `write_report`.

    Returns
    -------
    Path
        ``report.html``. Results that were not dimlab's own are left out.

    Raises
    ------
    FileNotFoundError
        If the folder holds no report.
    ValueError
        If it is damaged or of another version of dimlab, keeps no result, or the format is unknown.
    OSError
        If the new folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from dimlab.mask import MaskTrace
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_report(folder, {"trace": trace}).read_bytes()
    ...     redraw_report(folder).read_bytes() == written
    True
    """
    folder = Path(folder)
    if not (folder / CONTENTS).is_file():
        raise FileNotFoundError(
            f"folder must hold a report of dimlab; got {folder}, which holds none."
        )
    with locked(folder, "results"):  # nobody writes into it meanwhile
        try:
            contents = json_of((folder / CONTENTS).read_bytes())
            names, headline = _texts(contents["results"]), _texts(contents["headline"])
            not_measured = _texts(contents.get("not_measured", []))
            (title,) = _texts([contents["title"]])
            if any(Path(name).name != name for name in names):
                raise Refusal("a result in another folder")
            provenance = dict(json_of((folder / "provenance.json").read_bytes()))
            provenance.pop(WRITTEN, None)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise Refusal(
                f"{folder / CONTENTS} must be whole; got a damaged file. Run dimlab report again."
            ) from error
        kept = [name for name in names if (folder / f"{name}{SUFFIX}").is_file()]
        _check_written_together(folder, kept)
        results = {name: load_result(folder / f"{name}{SUFFIX}") for name in kept}
    if not results:
        raise Refusal(f"{folder} must keep at least one result; got none to draw again.")
    check_format(figure_format)
    order = {
        "title": title,
        "headline": headline,
        "results": list(results),
        "not_measured": not_measured,
    }
    place = folder if out is None else Path(out)
    in_place = place.exists() and place.samefile(folder)
    with _that_were_read(folder):
        # in place nothing leaves: what is not drawn again was measured all the same
        contents = _contents(
            results, order, provenance, figure_format, _written_before(folder) if in_place else {}
        )
    written = write_files(
        place, contents, outdated=None if in_place else lambda: _written_before(place)
    )
    return written["report.html"]


def _check_written_together(folder: Path, names: Sequence[str]) -> None:
    """Refuse results that are not those which the manifest of a report lists."""
    listed = _written_before(folder)
    for name in (f"{name}{SUFFIX}" for name in names):
        if listed.get(name) not in (None, digest((folder / name).read_bytes())):
            raise Refusal(
                f"{folder} must hold the files of one report; got {name} of another one, as when a "
                "command is interrupted. Run dimlab report again."
            )


def _texts(texts: Any) -> list[str]:
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise TypeError("no list of texts")
    return texts


@contextmanager
def _that_were_read(folder: Path) -> Iterator[None]:
    """Refuse results that were read but cannot be shown: they are damaged."""
    try:
        yield
    except OSError:
        raise
    except DAMAGED as error:
        raise Refusal(
            f"{folder} must hold results that fit together; got others ({error}). Run dimlab "
            "report again."
        ) from error


def write_result(
    folder: str | os.PathLike[str],
    name: str,
    result: Any,
    *,
    figure_format: str = "svg",
    beside: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write a result as ``<name>.csv`` and ``.json``, with figures; return the files by kind."""
    # `beside`: contents of further files by their endings; `provenance`: kept with the hashes of
    # the other files
    check_format(figure_format)
    files = _files_of(name, result, figure_format)
    files |= {ending: (f"{name}{ending}", content) for ending, content in (beside or {}).items()}
    if provenance is not None:
        digests = {file: digest(content) for file, content in files.values()}
        files["provenance"] = f"{name}{RECORD}", _json({**provenance, WRITTEN: digests})
    written = write_files(folder, dict(files.values()))
    return {kind: written[file] for kind, (file, _) in files.items()}


def _files_of(name: str, result: Any, figure_format: str) -> dict[str, tuple[str, bytes]]:
    """Names and contents of all files of a result, by kind."""
    files = _shown(name, result, figure_format)
    if type(result).__module__.startswith(OURS):
        files["result"] = f"{name}{SUFFIX}", result_bytes(result)
    return files


def _shown(name: str, result: Any, figure_format: str) -> dict[str, tuple[str, bytes]]:
    """Tables, summary and figures of a result and of its parts."""
    files = {
        "csv": (f"{name}.csv", _encoded(result.to_frame().to_csv(index=False))),
        "json": (f"{name}.json", _json(result.summary())),
    }
    for table, frame in getattr(result, "tables", dict)().items():
        files[table] = f"{name}-{table}.csv", _encoded(frame.to_csv(index=False))
    for what, plot in plots_of(result).items():
        drawn = picture_of(plot, result, figure_format)
        kind = f"{what}_{figure_format}".removeprefix("_")
        files[kind] = _figure_name(name, what, figure_format), drawn
    for part, inner in getattr(result, "parts", dict)().items():
        shown = _shown(f"{name}-{part}", inner, figure_format)
        files |= {f"{part}_{kind}": file for kind, file in shown.items()}
    return files


def _section(name: str, result: Any, files: Mapping[str, tuple[str, bytes]]) -> dict[str, Any]:
    """Collect what the page shows of a result: numbers, figures with a line on each, files."""
    there = dict(files.values())
    parts: dict[str, Any] = getattr(result, "parts", dict)()
    shown = {name: result, **{f"{name}-{part}": inner for part, inner in parts.items()}}
    figures = [
        {
            "data": _data_uri(
                there.get(_figure_name(stem, what, "svg")) or picture_of(plot, each, "svg")
            ),
            "narrow": _data_uri(picture_of(plot, each, "svg", narrow=True)),
            "shows": paragraphs_of(plot)[0],
            "reading": paragraphs_of(plot)[1],
        }
        for stem, each in shown.items()
        for what, plot in plots_of(each).items()
    ]
    summary = numbers_of(result)
    nested = {key: value for key, value in summary.items() if isinstance(value, Mapping)}
    return {
        "name": name.replace("_", " ").replace("-", " "),
        "anchor": "result-" + re.sub(r"[^\w.-]+", "-", name),
        "summary": {key: in_words(each) for key, each in summary.items() if key not in nested},
        "nested": [{"name": key, "text": in_words(each)} for key, each in nested.items() if each],
        "figures": figures,
        "files": sorted(there),
    }


def _figure_name(stem: str, what: str, figure_format: str) -> str:
    return f"{stem}{what.replace('_', '-')}.{figure_format}"


def _cell(value: Any) -> dict[str, str]:
    """Text of a cell, and what it is sorted by."""
    if isinstance(value, (bool, np.bool_)):
        return {"text": "yes" if value else "no", "key": str(int(value))}
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return {"text": "", "key": ""}
        return {"text": f"{value:.4g}", "key": f"{value:.9g}"}
    return {"text": str(value), "key": str(value)}


def check_format(figure_format: str) -> None:
    """Refuse a format of figures other than those of `FORMATS`."""
    if figure_format not in FORMATS:
        raise Refusal(f"format must be one of {', '.join(FORMATS)}; got {figure_format!r}.")


def plots_of(result: Any) -> dict[str, Any]:
    """Figures of a result's class by what follows its name, the plain one first."""
    from dimlab import figures

    start = f"plot_{in_lower_case(type(result))}"
    names = [name for name in figures.__all__ if f"{name}_".startswith(f"{start}_")]
    return {name.removeprefix(start): getattr(figures, name) for name in sorted(names)}


def paragraphs_of(plot: Any) -> tuple[str, str]:
    """Read what a figure shows, and how to read it, off its docstring: summary and `Returns`."""
    text = inspect.cleandoc(plot.__doc__ or "")
    found = re.search(r"^Returns\n-+\n\S.*\n((?: +\S.*\n?)+)", text, re.M)
    reading = "" if found is None else " ".join(found[1].split())
    return text.partition("\n")[0], reading


def _data_uri(image: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(image).decode()


def _json(value: Any) -> bytes:
    return (json_text(value) + "\n").encode()


def _encoded(text: str) -> bytes:
    """UTF-8; what it cannot write, such as half of a character in a file's name, is escaped."""
    return text.encode("utf-8", "backslashreplace")
