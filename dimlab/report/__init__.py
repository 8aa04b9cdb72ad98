"""The report: one self-contained HTML file, with every number beside it as CSV and JSON."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.atomic import replacing

__all__ = ["in_words", "write_report", "write_result"]

_STYLE = {"svg.hashsalt": "dimlab", "figure.dpi": 100, "axes.titlesize": "medium"}


def write_report(
    folder: str | os.PathLike[str],
    results: Mapping[str, Any],
    *,
    title: str = "dimlab report",
    headline: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html`` and, beside it, each result as CSV, JSON and figure.

    Parameters
    ----------
    folder : path
        Made if missing. Files of the same names are replaced.
    results : mapping of str to result
        Results with ``to_frame()`` and ``summary()``; a figure is drawn where ``dimlab.figures``
        has ``plot_<class name>`` in lower case with underscores. The keys name the files.
    title : str, default="dimlab report"
        Title of the page.
    headline : sequence of str
        The sentences that stand first.
    provenance : mapping, optional
        Command, versions, seed, data: shown at the foot and written to ``provenance.json``.

    Returns
    -------
    Path
        ``folder/report.html``: one file without any network request. The same inputs give the same
        bytes.

    Raises
    ------
    ValueError
        If there is no result.
    """
    import jinja2

    if not results:
        raise ValueError("results must hold at least one result; got none.")
    sections = []
    for name, result in results.items():
        files = write_result(folder, name, result)
        sections.append(
            {
                "name": name.replace("_", " ").replace("-", " "),
                "anchor": name,
                "summary": {key: in_words(value) for key, value in result.summary().items()},
                "figure": _data_uri(files["svg"]) if "svg" in files else None,
                "caption": _caption(result),
                "files": [path.name for path in files.values()],
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dimlab.report", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("template.html").render(
        title=title, headline=headline, sections=sections, provenance=dict(provenance or {})
    )
    _write_text(Path(folder) / "provenance.json", _json(dict(provenance or {})))
    return _write_text(Path(folder) / "report.html", page)


def write_result(folder: str | os.PathLike[str], name: str, result: Any) -> dict[str, Path]:
    """Write a result as ``<name>.csv`` and ``.json``, its other tables, and figures as ``.svg``.

    Parameters
    ----------
    folder : path
        Made if missing.
    name : str
        Stem of the files.
    result : result
        With ``to_frame()`` and ``summary()``; where it has ``tables()``, each is a
        ``<name>-<table>.csv``; where it has ``parts()``, each is a result of its own,
        ``<name>-<part>``. Figures are all ``plot_<class name>`` and ``plot_<class name>_<what>``.

    Returns
    -------
    dict of str to Path
        The files written, by kind.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "csv": _write_text(folder / f"{name}.csv", result.to_frame().to_csv(index=False)),
        "json": _write_text(folder / f"{name}.json", _json(result.summary())),
    }
    for table, frame in getattr(result, "tables", dict)().items():
        path = folder / f"{name}-{table}.csv"
        files[table] = _write_text(path, frame.to_csv(index=False))
    for what, plot in _plots_of(result).items():
        path = folder / f"{name}{what.replace('_', '-')}.svg"
        files[f"{what}_svg".removeprefix("_")] = _write_text(path, _draw(plot, result))
    for part, inner in getattr(result, "parts", dict)().items():
        written = write_result(folder, f"{name}-{part}", inner)
        files |= {f"{part}_{kind}": path for kind, path in written.items()}
    return files


def _write_text(path: Path, text: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _plots_of(result: Any) -> dict[str, Any]:
    """Figures of a result's class by what follows its name, the plain one first."""
    from dimlab import figures

    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(result).__name__)
    names = [name for name in figures.__all__ if f"{name}_".startswith(f"plot{words}_")]
    return {name.removeprefix(f"plot{words}"): getattr(figures, name) for name in sorted(names)}


def _draw(plot: Any, result: Any) -> str:
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {**sns.axes_style("ticks"), **_STYLE}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        plot(result, ax=axes)
        sns.despine(ax=axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    return buffer.getvalue()


def _caption(result: Any) -> str:
    plot = _plots_of(result).get("")
    return (plot.__doc__ or "").strip().splitlines()[0] if plot is not None else ""


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def in_words(value: Any) -> str:
    """Write a value of a summary as people read it: four digits, the first twelve of a list.

    Parameters
    ----------
    value : object
        A number, a string, or a list or mapping of them.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> in_words([0.123456, 2]), in_words([[1, 2], [3]])
    ('0.1235, 2', '(1, 2), 3')
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_member(each) for each in value[:12])
        return (shown or "none") + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {in_words(each)}" for key, each in value.items())
    return str(value)


def _member(value: Any) -> str:
    """Write a member of a list; a list within it in brackets, unless it has one member."""
    if not isinstance(value, (list, tuple)):
        return in_words(value)
    inner = in_words(value)
    return inner if len(value) == 1 else f"({inner})"


def _json(value: Any) -> str:
    def plain(each: Any) -> Any:
        if isinstance(each, (np.generic, np.ndarray)):
            return each.tolist()
        raise TypeError(f"cannot write {type(each).__name__} as JSON")

    return json.dumps(value, indent=2, default=plain) + "\n"
