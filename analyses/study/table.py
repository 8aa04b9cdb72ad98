"""The table of verdicts in ``analyses/README.md``, and a page for each claim beside its numbers.

All of it is made of the results that are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from dimlab.io.files import replacing
from dimlab.text import make_streams_readable
from study.analysis import RESULTS, SEARCH, SIZES, Analysis, judge_again
from study.judgement import Judgement, judged
from study.sweep import AUGMENTATION

BEGIN, END = "<!-- verdicts -->", "<!-- end of verdicts -->"
_NEEDED = ("claim", "script", "size", "seeds", "data", "seconds", "environment")
_HEAD = (
    "claim", "verdict", "effect with 95 % interval", "smallest effect", "seeds", "data", "more",
)  # fmt: skip


def verdict_table(folder: Path) -> str:
    """Make the table of the results in a folder, one row a claim."""
    return "\n".join([*_head(_HEAD), *(_row(_cells(each)) for each in _results_in(folder))])


def pages(folder: Path) -> dict[Path, str]:
    """Make the page of every result, with all parts of its verdict, and that of the search."""
    made = {folder / RESULTS / f"{each['stem']}.md": _section(each) for each in _results_in(folder)}
    searched = folder / RESULTS / SEARCH
    if searched.is_file():
        found = json.loads(searched.read_text(encoding="utf-8"))
        made[searched.with_suffix(".md")] = _search_section(found)
    return {path: "\n".join(lines) + "\n" for path, lines in made.items()}


def _results_in(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / RESULTS).glob("*.json"))
    return [_result_in(path) for path in paths if path.name != SEARCH]


def _result_in(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Judgement.from_dict(result["verdict"])
        missing = [name for name in _NEEDED if name not in result]
    except (ValueError, KeyError, TypeError, AttributeError):
        missing = ["verdict"]
    if missing:
        raise ValueError(
            f"{path} must be the result of an analysis; got one without {', '.join(missing)}. Run "
            "the analysis with --keep."
        )
    return result | {"stem": path.stem}


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(cells: tuple[str, ...]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]


def _outdated(kept: dict[str, Any]) -> str:
    """Say which augmentation rows were trained with, where it is no longer today's."""
    made_with = kept.get("augmentation", 1)
    if made_with == AUGMENTATION:
        return ""
    return (
        f" **Trained with version {made_with} of the augmentation** (now {AUGMENTATION}, see "
        "CHANGELOG.md): to be run again."
    )


def _number(judgement: Judgement) -> str:
    interval = f"[{judgement.ci_low:+.4f}, {judgement.ci_high:+.4f}]"
    return f"{judgement.effect:+.4f} {interval} {judgement.unit}"


def _machine(result: dict[str, Any]) -> str:
    where = result["environment"]
    return f"{where['processor'] or where['machine']}, torch {where['torch']}"


def _machines(result: dict[str, Any]) -> str:
    further = [_machine({"environment": each}) for each in result.get("further_environments", [])]
    return "; some of it ".join(dict.fromkeys([_machine(result), *further]))


def _cells(result: dict[str, Any]) -> list[str]:
    judgement = Judgement.from_dict(result["verdict"])
    script, stem = result["script"], result["stem"]
    answer = f"**{judgement.answer}**" + (" (to be run again)" if _outdated(result) else "")
    return [
        f"[{result['claim']}]({script})", answer, _number(judgement),
        f"{judgement.smallest_effect:g}", str(judgement.n_seeds), result["data"],
        f"[all parts]({RESULTS}/{stem}.md)",
    ]  # fmt: skip


def _section(result: dict[str, Any]) -> list[str]:
    judgement = Judgement.from_dict(result["verdict"])
    needed = "" if judgement.n_needed is None else f" {judgement.n_needed} seeds would decide it."
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {result['claim']}", "",
        f"Made by `python analyses/{result['script']} --{result['size']}`: the "
        f"[script](../{result['script']}), its [numbers]({result['stem']}.json).", "",
        f"![{result['claim']}]({result['stem']}.svg)", "",
        f"**{judgement.answer}**: {_number(judgement)}.{needed} Seeds {seeds}; {result['data']}; "
        f"{result['seconds'] / 60:.0f} minutes of one thread ({_machines(result)})."
        f"{_outdated(result)}",
    ]  # fmt: skip
    lines += ["", judgement.because] if judgement.because else []
    lines += [""] if judgement.parts else []
    for part in judgement.parts:
        more = "" if part.n_needed is None else f" {part.n_needed} seeds would decide it."
        lines.append(
            f"- {part.claim}: **{part.answer}**, {_number(part)}, smallest effect "
            f"{part.smallest_effect:g}.{more}" + (f" {part.because}" if part.because else "")
        )
    return lines


def _search_section(found: dict[str, Any]) -> list[str]:
    """Tabulate what each family's search chose, and how much its eight configurations differ."""
    lines = [
        "# What the search chose, and how much the choice matters", "",
        f"kNN accuracy on the {found['split']} split of {found['data']} after {found['steps']:,} "
        f"steps, seed {found['seed']}, masked where a mask is learned; {found['seconds'] / 60:.0f} "
        f"minutes ({_machine(found)}). The last column is Spearman's correlation of accuracy and "
        f"mask learning rate.{_outdated(found)}", "",
        *_head(("family", "chosen", "best", "median", "worst", "seconds a step", "mask rate")),
    ]  # fmt: skip
    for family, each in found["families"].items():
        accuracy = [tried["accuracy"] for tried in each["tried"]]
        rates = [tried.get("mask_learning_rate") for tried in each["tried"]]
        chosen = ", ".join(
            f"{name} {value if isinstance(value, str) else format(value, 'g')}"
            for name, value in each["chosen"].items()
        )
        lines.append(
            _row((
                family, chosen, f"{max(accuracy):.4f}", f"{np.median(accuracy):.4f}",
                f"{min(accuracy):.4f}", f"{each['seconds_per_step']:.4f}",
                "" if None in rates else f"{spearmanr(rates, accuracy).statistic:+.2f}",
            ))
        )  # fmt: skip
    for knob, varied in found.get("varied", {}).items():
        lines += ["", _varied(knob, varied)]
    return lines


def _varied(knob: str, varied: dict[str, Any]) -> str:
    """Say what another value of a knob does to each family, paired by seed."""
    first, *others = varied["values"]
    said = []
    for family, (start, *rest) in varied["accuracy"].items():
        for value, accuracy in zip(others, rest, strict=True):
            judgement = judged(
                "", np.subtract(accuracy, start).tolist(), smallest_effect=1, unit=""
            )
            said.append(
                f"{family} {np.mean(start):.4f} with {first}, {np.mean(accuracy):.4f} with {value} "
                f"({judgement.effect:+.4f} [{judgement.ci_low:+.4f}, {judgement.ci_high:+.4f}])"
            )
    seeds = ", ".join(map(str, varied["seeds"]))
    return (
        f"Asked after the search, `--vary {knob}`, seeds {seeds} ({_machine(varied)}): "
        f"{'; '.join(said)}."
    )


def write_verdict_table(folder: Path) -> list[Path]:
    """Write the table between its two marks in the folder's README, and the pages."""
    readme = folder / "README.md"
    if not readme.is_file():
        raise FileNotFoundError(f"folder must have a README.md; got {folder}.")
    text = with_table(readme.read_text(encoding="utf-8"), verdict_table(folder))
    made = {readme: text, **pages(folder)}
    for place, words in made.items():
        with replacing(place) as path:
            path.write_text(words, encoding="utf-8")
    return list(made)


def with_table(text: str, table: str) -> str:
    """Put a table between the two marks of a text."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md must have the marks {BEGIN} and {END}; got none.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write table and pages of the folder that the arguments name; return the exit code."""
    folder = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(prog="python analyses/study", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=folder,
        help="folder of analyses, with results/ and README.md",
    )  # fmt: skip
    parser.add_argument("--judge", action="store_true", help="first judge the kept rows again")
    make_streams_readable()
    asked = parser.parse_args(arguments)
    try:
        written = _judge(asked.folder) if asked.judge else []
        written += write_verdict_table(asked.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*(f"wrote {path}" for path in written), sep="\n")
    return 0


def _judge(folder: Path) -> list[Path]:
    written = []
    for script in sorted(folder.resolve().glob("*.py")):
        analysis = _analysis_in(script)
        for size in SIZES:
            if analysis.kept(size).is_file():
                written += judge_again(analysis, size)
    return written


def _analysis_in(script: Path) -> Analysis:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise ValueError(f"folder must hold Python scripts; got {script}.")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {size: getattr(module, size.upper()) for size in SIZES}
    return Analysis(script, module.CLAIM, module.run, module.judge, sizes)
