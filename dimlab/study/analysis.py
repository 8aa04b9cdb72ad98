"""The command line of an analysis: run a size, judge, compare with what is kept, write."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.atomic import write_together
from dimlab.devices import check_device
from dimlab.study.families import FAMILIES
from dimlab.study.search import VARIED, read_search, search, vary, write_search, write_varied
from dimlab.study.sweep import AUGMENTATION, OutOfTime, Study
from dimlab.study.verdict import Verdict, number_or_nan
from dimlab.text import make_streams_readable
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import current_world, joined

if TYPE_CHECKING:
    from pandas import DataFrame

EXPECTED, RESULTS, SEARCH = "expected", "results", "search.json"
SIZES = ("small", "medium", "paper")
_ERRORS = 3  # standard errors over seeds within which a mean is reproduced
_RARE = 0.0027  # how often a normal variable is further from its mean than that
_ROUNDING = 1e-6
_NUMBERED = ("width", "drop", "step")  # numbers that tell kinds of rows apart: nothing measured
_SECONDS = "_seconds"  # how the names of times end, which are nowhere the same
_CHUNK = 45.0  # minutes


@dataclass(frozen=True)
class Analysis:
    """A claim, and how it is put to the test.

    Parameters
    ----------
    script : Path
        Its file, in a folder with ``expected/`` and ``results/``.
    claim : str
        What is claimed.
    run : callable
        ``run(study) -> DataFrame``: one row a run, nothing aggregated.
    judge : callable
        ``judge(table) -> Verdict``.
    sizes : dict of str to Study
        ``small``, ``medium`` and ``paper``.
    """

    script: Path
    claim: str
    run: Callable[[Study], DataFrame]
    judge: Callable[[DataFrame], Verdict]
    sizes: dict[str, Study]

    def kept(self, size: str) -> Path:
        """Return where the numbers of a size are kept.

        Parameters
        ----------
        size : str
            ``small``, ``medium`` or ``paper``.

        Returns
        -------
        Path
            It need not be there.
        """
        if size == "small":
            return self.script.parent / EXPECTED / f"{self.script.stem}.json"
        name = self.script.stem + ("" if size == "medium" else f"-{size}")
        return self.script.parent / RESULTS / f"{name}.json"

    @property
    def search(self) -> Path:
        """What the search chose, for every analysis of the folder."""
        return self.script.parent / RESULTS / SEARCH

    def of_size(self, size: str) -> Study:
        """Return the study of a size, with what the search chose for the medium one.

        Parameters
        ----------
        size : str
            ``small``, ``medium`` or ``paper``.

        Returns
        -------
        Study
            Ready to run.

        Raises
        ------
        FileNotFoundError
            If the search has not been done.
        """
        study = self.sizes[size]
        return study.with_search(self.search) if size == "medium" else study

    def judged(self, table: DataFrame, size: str) -> Verdict:
        """Judge; what the small size says decides nothing.

        Parameters
        ----------
        table : DataFrame
            As ``run`` gives.
        size : str
            ``small``, ``medium`` or ``paper``.

        Returns
        -------
        Verdict
            Always undecided at the small size.
        """
        verdict = self.judge(table)
        return verdict.never_decided() if size == "small" else verdict

    def result(self, study: Study) -> dict[str, Any]:
        """Run and judge.

        Parameters
        ----------
        study : Study
            Of some size.

        Returns
        -------
        dict
            Ready for JSON: claim, verdict, seeds, data, configuration, version of the augmentation,
            seconds, environment of the runs, rows.

        Raises
        ------
        OutOfTime
            If the study's minutes are over.
        """
        from dimlab.report.provenance import environment

        table = self.run(study)
        verdict = self.judged(table, study.size)
        # where the runs were made, which may be on several machines
        places = table.attrs.get("environments") or [environment()]
        return {
            "claim": self.claim,
            "script": self.script.name,
            "size": study.size,
            "verdict": verdict.to_dict(),
            "seeds": list(study.seeds),
            "data": study.data_name,
            "device": study.device,
            "config": study.config.to_dict(),
            "augmentation": AUGMENTATION,
            "chosen": {name: dict(each) for name, each in study.chosen.items()},
            "seconds": round(float(table[["train_seconds", "measure_seconds"]].sum().sum()), 1),
            "environment": places[0],
            **({"further_environments": places[1:]} if len(places) > 1 else {}),
            "rows": json.loads(table.to_json(orient="records", double_precision=8)),
        }


def disagreements(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare a result with the one that is kept: answers, means and spreads over seeds.

    Parameters
    ----------
    kept, now : dict
        As `Analysis.result` gives; of the same size, seeds and data.

    Returns
    -------
    list of str
        One sentence for each answer, kind of row or number that is not reproduced.

    Notes
    -----
    The claim's answer must be the kept one. Looked at further are the answers and effects of the
    parts and, of each measured column, the values of every kind of row over seeds; a kind is what
    the labels say: family, budget, width, reader and so on. A kind or a column that only one of the
    two has is a disagreement, and so is a number where the other has none.

    With the processor and the packages that made all kept rows a training repeats bit for bit:
    every part must have its kept answer, a mean must lie within 3 of its standard errors over
    seeds, and a standard deviation within a factor of 3. Elsewhere rounding differs, which training
    amplifies until a seed says no more than another seed would. Then a part disagrees where it
    turned from holds to fails or back; means and spreads are those of two samples, and what is
    called different is as rare as 3 standard errors of a normal variable (0.27 %, shared among all
    that is compared): by Welch's t, and by F. Where neither has any spread, that of the column's
    other kinds stands in its place.

    References
    ----------
    Welch, "The generalization of Student's problem", Biometrika 34, 1947.

    Examples
    --------
    >>> from dimlab.study.verdict import judged
    >>> def of(*differences, torch="2"):
    ...     verdict = judged("a > b", differences, smallest_effect=0.01, unit="accuracy")
    ...     return {"verdict": verdict.to_dict(), "environment": {"torch": torch}, "rows": []}
    >>> disagreements(of(0.02, 0.03, 0.04), of(0.03, 0.04, 0.05))
    []
    >>> disagreements(of(0.02, 0.03, 0.04), of(0.06, 0.07, 0.08))
    ['a > b: +0.0700 is not within 0.0173 (3 standard errors) of +0.0300.']
    >>> disagreements(of(0.02, 0.03, 0.04), of(0.06, 0.07, 0.08, torch="3"))
    []
    >>> disagreements(of(0.02, 0.03, 0.04), of(0.01, 0.02, 0.03, torch="3"))
    ['a > b: the answer is undecided, and holds is kept.']
    """
    before, after = (_all_parts(Verdict.from_dict(each["verdict"])) for each in (kept, now))
    alike = _alike(kept, now)
    asked, answered = ({each.claim: each for each in side[1:]} for side in (before, after))
    said = [
        f"{claim}: the question "
        + ("is kept, and was not asked." if claim in asked else "was asked, and is not kept.")
        for claim in {**asked, **answered}
        if claim not in asked or claim not in answered
    ]
    questions = [(before[0], after[0])]
    questions += [(old, answered[claim]) for claim, old in asked.items() if claim in answered]
    said += [
        f"{old.claim}: the answer is {new.answer}, and {old.answer} is kept."
        for place, (old, new) in enumerate(questions)
        if _turned(old.answer, new.answer, strictly=place == 0 or alike)
    ]
    compared = [
        _Pair(old.claim, np.array(old.differences), np.array(new.differences))
        for old, new in questions
    ]
    levels, unmatched = _levels(kept["rows"], now["rows"])
    compared += levels
    level = None if alike else _RARE / len(compared)
    for pair in compared:
        said += [f"{pair.name}: {words}" for words in _unlike(pair, level)]
    return said + unmatched


@dataclass(frozen=True)
class _Pair:
    """What is compared: a value a seed, kept and measured now; the spread that its like have."""

    name: str
    before: np.ndarray
    after: np.ndarray
    usual: float = 0.0


def _turned(before: str, after: str, *, strictly: bool) -> bool:
    """Whether an answer is another; not strictly: whether it is the opposite one."""
    return before != after if strictly else {before, after} == {"holds", "fails"}


def _alike(kept: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether rounding is the same in all rows: threads do not matter, as every run has one."""
    names = {"threads", "dimlab", "matplotlib"}
    # rows do not say which of several machines made them
    places = [
        {name: value for name, value in place.items() if name not in names}
        for each in (kept, now)
        for place in (each["environment"], *each.get("further_environments", []))
    ]
    return all(place == places[0] for place in places)


def _levels(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> tuple[list[_Pair], list[str]]:
    """Pair what was measured, kind by kind and in the order of seeds, and say what has no pair."""
    sides = [rows for rows in (before, after) if rows and "seed" in rows[0]]
    names = [{name for row in rows for name in row} for rows in (before, after)]
    labels = [
        name
        for name in dict.fromkeys(name for rows in sides for row in rows for name in row)
        if name in _NUMBERED
        or any(isinstance(row.get(name), str) for rows in sides for row in rows)
    ]
    said = [
        f"{name}: the column "
        + (
            "is kept, and was not measured."
            if name in names[0]
            else "was measured, and is not kept."
        )
        for name in sorted(names[0] ^ names[1])
        if not name.endswith(_SECONDS)
    ]
    tables = [_by_kind(rows, labels) for rows in (before, after)]
    shared = []
    for kind in dict.fromkeys([*tables[0], *tables[1]]):
        seeds = [", ".join(map(str, sorted(table.get(kind, ())))) or "none" for table in tables]
        if seeds[0] == seeds[1]:
            shared.append(kind)
        else:
            said.append(f"{kind or 'rows'}: of seeds {seeds[1]}, and of seeds {seeds[0]} are kept.")
    pairs = []
    for name in sorted((names[0] & names[1]) - {"seed", *labels}):
        found = []
        for kind in () if name.endswith(_SECONDS) else shared:
            old, new = (
                np.array([table[kind][seed].get(name, np.nan) for seed in sorted(table[kind])])
                for table in tables
            )
            what = f"{name} of {kind}" if kind else name
            finite = np.isfinite(old)
            if (finite != np.isfinite(new)).any():
                said.append(f"{what}: {_listed(new)}, and {_listed(old)} is kept.")
            elif finite.any():
                found.append(_Pair(what, old[finite], new[finite]))
        # seeds that agree by chance, as accuracies may, do not show what another seed would give
        squares = [float(side.var()) for pair in found for side in (pair.before, pair.after)]
        usual = float(np.mean(squares)) ** 0.5 if squares else 0.0
        pairs += [replace(pair, usual=usual) for pair in found]
    return pairs, said


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _by_kind(
    rows: list[dict[str, Any]], labels: Sequence[str]
) -> dict[str, dict[int, dict[str, float]]]:
    """Collect rows by kind and seed; several of one are averaged, column by column."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        if "seed" in row:
            told = [
                f"{name} {value if isinstance(value, str) else format(value, 'g')}"
                for name in labels
                if (value := row.get(name)) is not None
            ]
            found.setdefault(", ".join(told), {}).setdefault(row["seed"], []).append(row)
    return {
        kind: {
            seed: {
                name: float(np.mean([number_or_nan(row.get(name)) for row in several]))
                for name in several[0]
                if name not in labels
            }
            for seed, several in by_seed.items()
        }
        for kind, by_seed in found.items()
    }


def _unlike(pair: _Pair, level: float | None) -> list[str]:
    """Say in which way two samples differ more than they may; None: they are of one machine."""
    from scipy.stats import f, t

    before, after = pair.before, pair.after
    if min(len(before), len(after)) < 2:
        gap = abs(after.mean() - before.mean())
        return [] if gap < _ROUNDING else [f"{after.mean():+.4f} is not {before.mean():+.4f}."]
    spreads = [float(side.std(ddof=1)) for side in (before, after)]
    squares = [spread**2 / len(side) for spread, side in zip(spreads, (before, after), strict=True)]
    if level is None:
        allowed, factor = _ERRORS * squares[0] ** 0.5, float(_ERRORS)
        rule = f"{_ERRORS} standard errors"
    else:
        terms = [
            square**2 / (len(side) - 1)
            for square, side in zip(squares, (before, after), strict=True)
        ]
        if max(spreads) > _ROUNDING:
            freedom, square = sum(squares) ** 2 / sum(terms), sum(squares)
        else:
            freedom = len(before) + len(after) - 2
            square = pair.usual**2 * (1 / len(before) + 1 / len(after))
        allowed = float(t.ppf(1 - level / 2, freedom)) * square**0.5
        factor = float(f.ppf(1 - level / 2, len(after) - 1, len(before) - 1)) ** 0.5
        rule = "Welch's t"
    said = []
    # a spread of nothing (an effect that is exactly 0, say) still leaves rounding
    if not abs(after.mean() - before.mean()) <= allowed + _ROUNDING:
        said.append(
            f"{after.mean():+.4f} is not within {allowed:.4f} ({rule}) of {before.mean():+.4f}."
        )
    # one that is exactly 0 says nothing of the other
    if min(spreads) > _ROUNDING and not 1 / factor <= spreads[1] / spreads[0] <= factor:
        said.append(
            f"the standard deviation over seeds, {spreads[1]:.4f}, is not within a factor of "
            f"{factor:.1f} of {spreads[0]:.4f}."
        )
    return said


def _all_parts(verdict: Verdict) -> list[Verdict]:
    return [verdict, *(each for part in verdict.parts for each in _all_parts(part))]


def main(
    claim: str,
    run: Callable[[Study], DataFrame],
    judge: Callable[[DataFrame], Verdict],
    small: Study,
    medium: Study,
    paper: Study,
    *,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run an analysis from the shell, and exit.

    Parameters
    ----------
    claim : str
        What is claimed.
    run : callable
        ``run(study) -> DataFrame``.
    judge : callable
        ``judge(table) -> Verdict``.
    small, medium, paper : Study
        The three sizes.
    arguments : sequence of str, optional
        In the place of the command line's.

    Raises
    ------
    SystemExit
        Always. 0 done; 1 the minutes are over (the same command goes on) or a file cannot be
        written; 2 the command line or its input is wrong; 3 the kept numbers are not reproduced.
    """
    script = Path(str(sys.modules[run.__module__].__file__)).resolve()
    sizes = dict(zip(SIZES, (small, medium, paper), strict=True))
    analysis = Analysis(script, claim, run, judge, sizes)
    make_streams_readable()
    asked = _parser(analysis).parse_args(arguments)
    try:
        check_device(asked.device)
        with joined(asked.device) as (_, device):
            if asked.search:
                code = _search(analysis, asked)
            elif asked.vary:
                code = _vary(analysis, asked)
            else:
                code = _run(analysis, asked, device)
    except OutOfTime as error:
        print(error, file=sys.stderr)
        code = 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on.", file=sys.stderr)
        code = 1
    raise SystemExit(code)


def _parser(analysis: Analysis) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=analysis.script.name, description=analysis.claim)
    size = parser.add_mutually_exclusive_group(required=True)
    for name, study in analysis.sizes.items():
        size.add_argument(
            f"--{name}", dest="size", action="store_const", const=name,
            help=f"{study.data_name}, {len(study.seeds)} seeds, "
            + (f"{study.config.epochs} epochs" if study.config.epochs else
               f"{study.config.steps} steps"),
        )  # fmt: skip
    size.add_argument(
        "--search", action="store_true", help="choose hyper-parameters on the validation split"
    )
    size.add_argument(
        "--vary", choices=VARIED, help="change one knob of what the search chose, on validation"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for runs, results")
    parser.add_argument("--minutes", type=float, default=_CHUNK, help="after these no run begins")
    parser.add_argument("--jobs", type=int, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, help="how many, from 0")
    parser.add_argument("--data", help="another data set, as dimlab train takes it")
    parser.add_argument("--data-dir", type=Path, help="where it lies")
    parser.add_argument("--encoder", help="another encoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", action="store_true", help="keep the numbers beside the script")
    parser.add_argument("--json", action="store_true", help="the whole result on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _asked_for(study: Study, asked: argparse.Namespace) -> Study:
    changes: dict[str, Any] = {"data": asked.data, "n_jobs": asked.jobs, "data_dir": asked.data_dir}
    if asked.seeds is not None:
        if asked.seeds < 1:
            raise ValueError(f"seeds must be >= 1; got {asked.seeds}.")
        changes["seeds"] = tuple(range(asked.seeds))
    if asked.encoder is not None:
        changes["config"] = replace(study.config, encoder=asked.encoder)
    if asked.jobs is not None and asked.jobs < 1:
        raise ValueError(f"jobs must be >= 1; got {asked.jobs}.")
    if asked.out.exists() and not asked.out.is_dir():
        raise ValueError(f"out must be a folder; got {asked.out}, which is a file.")
    if not asked.minutes > 0:
        raise ValueError(f"minutes must be > 0; got {asked.minutes:g}.")
    others = ("seeds", "data", "encoder")
    changed = ", ".join(f"--{name}" for name in others if getattr(asked, name) is not None)
    if changed and (asked.keep or asked.search or asked.vary):
        what = "keep" if asked.keep else "search" if asked.search else "vary"
        raise ValueError(
            f"{what} must come without {changed}, as other runs rely on what it writes; "
            f"got {changed}."
        )
    together = current_world().size > 1  # torchrun's processes share every run
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"n_jobs": 1} if together else {}
    return replace(
        study,
        folder=asked.out / "study",
        until=float("inf") if together else time.monotonic() + 60 * asked.minutes,
        quiet=asked.quiet or current_world().rank > 0,
        **changes,
    )


def _searched(analysis: Analysis, asked: argparse.Namespace) -> Study:
    """Give the study that is searched: one for all analyses, whatever they plant."""
    study = replace(_asked_for(analysis.sizes["medium"], asked), device=asked.device)
    return replace(study, data=study.data_name.partition("+")[0])


def _vary(analysis: Analysis, asked: argparse.Namespace) -> int:
    varied = vary(_searched(analysis, asked).with_search(analysis.search), asked.vary)
    write_varied(analysis.search, asked.vary, varied)
    for family, accuracies in varied["accuracy"].items():
        means = zip(varied["values"], accuracies, strict=True)
        print(f"{family}:", ", ".join(f"{value} {np.mean(each):.4f}" for value, each in means))
    return 0


def _search(analysis: Analysis, asked: argparse.Namespace) -> int:
    started = time.monotonic()
    study = _searched(analysis, asked)
    families = [name for name, family in FAMILIES.items() if family.knobs]
    if analysis.search.is_file() and set(families) <= set(read_search(analysis.search)):
        raise ValueError(
            f"search must be done once; got {analysis.search}, which has all families. Remove it "
            "to search again: every medium number then is to be made again."
        )
    found = search(study, families)
    write_search(analysis.search, study, found, started=started)
    for family, each in found.items():
        chosen = ", ".join(f"{name}={value}" for name, value in each["chosen"].items())
        print(f"{family}: {each['accuracy']:.4f} on validation with {chosen}")
    return 0


def _run(analysis: Analysis, asked: argparse.Namespace, device: str) -> int:
    study = replace(_asked_for(analysis.of_size(asked.size), asked), device=device)
    result = analysis.result(study)
    if current_world().rank > 0:
        return 0
    verdict = Verdict.from_dict(result["verdict"])
    kept = analysis.kept(study.size)
    stem = f"{analysis.script.stem}-{study.size}"
    targets = [(asked.out, stem)] + ([(kept.parent, kept.stem)] if asked.keep else [])
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    for folder, name in targets:
        folder.mkdir(parents=True, exist_ok=True)
        write_together(folder, _files(name, result, verdict, in_repository=folder == kept.parent))
    if asked.json:
        print(json.dumps(result, indent=1))
    else:
        print(in_words(verdict))
        print(f"wrote {', '.join(os.fspath(folder / f'{name}.json') for folder, name in targets)}")
    if asked.keep:
        return 0
    if before is None:
        print(f"compared with nothing: there is no {kept}.", file=sys.stderr)
        return 0
    if other := _other_settings(before, result):
        print(f"compared with nothing: {kept} is of other {', '.join(other)}.", file=sys.stderr)
        return 0
    said = disagreements(before, result)
    for each in said:
        print(each, file=sys.stderr)
    if not said:
        print(_agreement(kept, alike=_alike(before, result)), file=sys.stderr)
    return 3 if said else 0


def _agreement(kept: Path, *, alike: bool) -> str:
    """Say what was found to agree, and no more than was asked."""
    if alike:
        return (
            f"reproduces {kept}, on a processor and versions like its own: every answer is the "
            "same, and means and spreads over seeds agree, kind by kind."
        )
    return (
        f"agrees with {kept}, as far as another processor or other versions can: the claim's "
        "answer is the same, no part turned from holds to fails or back, and means and spreads "
        "over seeds differ, kind by kind, no more than those of other seeds would."
    )


def _other_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name settings in which two results differ, so that nothing is to be reproduced."""
    # what a result from before does not name was then what a missing field means now
    before, now = (
        {"augmentation": 1} | each | {"config": TrainConfig.from_dict(each["config"])}
        for each in (before, now)
    )
    names = ("seeds", "data", "config", "augmentation", "chosen")
    return [name for name in names if before[name] != now[name]]


def judge_again(analysis: Analysis, size: str) -> list[Path]:
    """Judge the rows that are kept once more, after a change of rules or words.

    Parameters
    ----------
    analysis : Analysis
        The claim.
    size : str
        ``small``, ``medium`` or ``paper``.

    Returns
    -------
    list of Path
        What was written: JSON, and the figure where one is kept.

    Raises
    ------
    FileNotFoundError
        If nothing is kept of that size.
    """
    import pandas as pd

    path = analysis.kept(size)
    kept = json.loads(path.read_text(encoding="utf-8"))
    verdict = analysis.judged(pd.DataFrame(kept["rows"]), size)
    result = {**kept, "claim": analysis.claim, "verdict": verdict.to_dict()}
    files = _files(path.stem, result, verdict, in_repository=True)
    return list(write_together(path.parent, files).values())


def _files(
    name: str, result: dict[str, Any], verdict: Verdict, *, in_repository: bool
) -> dict[str, bytes]:
    import pandas as pd

    from dimlab.figures import plot_verdict
    from dimlab.figures.house import picture_of

    files = {f"{name}.json": (json.dumps(result, indent=1) + "\n").encode()}
    if not in_repository:
        files[f"{name}.csv"] = pd.DataFrame(result["rows"]).to_csv(index=False).encode()
    if not (in_repository and result["size"] == "small"):
        files[f"{name}.svg"] = picture_of(plot_verdict, verdict, "svg")
    return files


def in_words(verdict: Verdict) -> str:
    """Write a verdict and its parts as lines of text.

    Parameters
    ----------
    verdict : Verdict
        With its parts.

    Returns
    -------
    str
        The claim, the answer, what it rests on, then a line or two a part.
    """
    lines = [verdict.claim, f"  {verdict.summary()}"]
    if verdict.because:
        lines.append(f"  {verdict.because}")
    for part in verdict.parts:
        lines.append("  - " + in_words(part).replace("\n", "\n    "))
    return "\n".join(lines)
