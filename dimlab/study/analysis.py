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
from dimlab.study.sweep import OutOfTime, Study
from dimlab.study.verdict import Verdict
from dimlab.training.distributed import current_world, joined

if TYPE_CHECKING:
    from pandas import DataFrame

EXPECTED, RESULTS, SEARCH = "expected", "results", "search.json"
SIZES = ("small", "medium", "paper")
_ERRORS = 3  # standard errors over seeds within which a mean is reproduced
_RARE = 0.0027  # how often a normal variable is further from its mean than that
_ROUNDING = 1e-6
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
            Ready for JSON: claim, verdict, seeds, data, configuration, seconds, environment of the
            runs, rows.

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
            "chosen": {name: dict(each) for name, each in study.chosen.items()},
            "seconds": round(float(table[["train_seconds", "measure_seconds"]].sum().sum()), 1),
            "environment": places[0],
            **({"further_environments": places[1:]} if len(places) > 1 else {}),
            "rows": json.loads(table.to_json(orient="records", double_precision=8)),
        }


def disagreements(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare a result with the one that is kept: means and spreads over seeds.

    Parameters
    ----------
    kept, now : dict
        As `Analysis.result` gives; of the same size, seeds and data.

    Returns
    -------
    list of str
        One sentence a number that is not reproduced.

    Notes
    -----
    Looked at are the effects and, of each measured column, its mean over the rows of a seed. With
    the processor and the packages that made the kept numbers a training repeats bit for bit, and
    a mean must lie within 3 of its standard errors over seeds, a standard deviation within a factor
    of 3. Elsewhere rounding differs, which training amplifies until a seed says no more than
    another seed would: then means and spreads are those of two samples, and what is called
    different is as rare as 3 standard errors of a normal variable (0.27 %, shared among all that
    is compared): by Welch's t, and by F.

    References
    ----------
    Welch, "The generalization of Student's problem", Biometrika 34, 1947.

    Examples
    --------
    >>> from dimlab.study.verdict import judged
    >>> def of(*differences, torch="2"):
    ...     verdict = judged("a > b", differences, smallest_effect=0.01, unit="accuracy")
    ...     return {"verdict": verdict.to_dict(), "environment": {"torch": torch}, "rows": []}
    >>> disagreements(of(0.01, 0.02, 0.03), of(0.02, 0.03, 0.04))
    []
    >>> disagreements(of(0.01, 0.02, 0.03), of(0.05, 0.06, 0.07))
    ['a > b: +0.0600 is not within 0.0173 (3 standard errors) of +0.0200.']
    >>> disagreements(of(0.01, 0.02, 0.03), of(0.05, 0.06, 0.07, torch="3"))
    []
    """
    before, after = (_all_parts(Verdict.from_dict(each["verdict"])) for each in (kept, now))
    said = []
    if [each.claim for each in before] != [each.claim for each in after]:
        said.append("The questions are others than those that are kept.")
    compared = [
        (old.claim, np.array(old.differences), np.array(new.differences))
        for old, new in zip(before, after, strict=False)
    ]
    levels = _levels(kept["rows"]), _levels(now["rows"])
    shared = [name for name in levels[0] if name in levels[1]]
    compared += [(name, levels[0][name], levels[1][name]) for name in shared]
    level = None if _alike(kept, now) else _RARE / len(compared)
    for name, old, new in compared:
        said += [f"{name}: {words}" for words in _unlike(old, new, level)]
    return said


def _alike(kept: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether rounding is the same: threads do not matter, as every run has one."""
    names = {"threads", "dimlab", "matplotlib"}
    sides = [
        {name: value for name, value in each["environment"].items() if name not in names}
        for each in (kept, now)
    ]
    return sides[0] == sides[1]


def _levels(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Mean over the rows of each seed, of what was measured; times are not."""
    import pandas as pd

    table = pd.DataFrame(rows)
    if "seed" not in table:
        return {}
    means = table.groupby("seed").mean(numeric_only=True).dropna(axis="columns")
    return {
        str(name): means[name].to_numpy(dtype=np.float64)
        for name in means.columns
        if not str(name).endswith("_seconds")
    }


def _unlike(before: np.ndarray, after: np.ndarray, level: float | None) -> list[str]:
    """Say in which way two samples differ more than they may; None: they are of one machine."""
    from scipy.stats import f, t

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
        freedom = sum(squares) ** 2 / sum(terms) if sum(terms) > 0 else 1.0
        allowed = float(t.ppf(1 - level / 2, freedom)) * sum(squares) ** 0.5
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
            help=f"{study.data_name}, {len(study.seeds)} seeds, {study.config.steps} steps",
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
        where = "here" if _alike(before, result) else "on another machine"
        print(f"reproduces {kept}, {where}: means and spreads over seeds agree.", file=sys.stderr)
    return 3 if said else 0


def _other_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name settings in which two results differ, so that nothing is to be reproduced."""
    return [name for name in ("seeds", "data", "config", "chosen") if before[name] != now[name]]


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
