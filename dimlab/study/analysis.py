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

from dimlab.atomic import write_together
from dimlab.devices import check_device
from dimlab.study.families import FAMILIES
from dimlab.study.search import search, write_search
from dimlab.study.sweep import OutOfTime, Study
from dimlab.study.verdict import Verdict
from dimlab.training.distributed import current_world, joined

if TYPE_CHECKING:
    from pandas import DataFrame

EXPECTED, RESULTS, SEARCH = "expected", "results", "search.json"
_ERRORS = 3  # standard errors over seeds within which a mean is reproduced
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

    def result(self, study: Study) -> dict[str, Any]:
        """Run and judge.

        Parameters
        ----------
        study : Study
            Of some size.

        Returns
        -------
        dict
            Ready for JSON: claim, verdict, seeds, data, configuration, seconds, environment, rows.

        Raises
        ------
        OutOfTime
            If the study's minutes are over.
        """
        from dimlab.report.provenance import environment

        table = self.run(study)
        verdict = self.judge(table)
        if study.size == "small":
            verdict = verdict.never_decided()
        return {
            "claim": self.claim,
            "script": self.script.name,
            "size": study.size,
            "verdict": verdict.to_dict(),
            "seeds": list(study.seeds),
            "data": study.data,
            "device": study.device,
            "config": study.config.to_dict(),
            "chosen": {name: dict(each) for name, each in study.chosen.items()},
            "seconds": round(float(table[["train_seconds", "measure_seconds"]].sum().sum()), 1),
            "environment": environment(),
            "rows": json.loads(table.to_json(orient="records", double_precision=8)),
        }


def disagreements(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare a result with the one that is kept: each effect within 3 standard errors over seeds.

    Parameters
    ----------
    kept, now : dict
        As `Analysis.result` gives; of the same size, seeds and data.

    Returns
    -------
    list of str
        One sentence an effect that is not reproduced.

    Examples
    --------
    >>> from dimlab.study.verdict import judged
    >>> def of(*differences):
    ...     verdict = judged("a > b", differences, smallest_effect=0.01, unit="accuracy")
    ...     return {"verdict": verdict.to_dict()}
    >>> disagreements(of(0.01, 0.03), of(0.02, 0.04))
    []
    >>> disagreements(of(0.01, 0.03), of(0.06, 0.08))
    ['a > b: +0.0700 is not within 3 standard errors (0.0100) of +0.0200.']
    """
    before, after = (_all_parts(Verdict.from_dict(each["verdict"])) for each in (kept, now))
    said = []
    if [each.claim for each in before] != [each.claim for each in after]:
        said.append("The questions are others than those that are kept.")
    for old, new in zip(before, after, strict=False):
        # a spread of nothing (an effect that is exactly 0, say) still leaves rounding
        if not abs(new.effect - old.effect) <= _ERRORS * old.standard_error + 1e-6:
            said.append(
                f"{old.claim}: {new.effect:+.4f} is not within {_ERRORS} standard errors "
                f"({old.standard_error:.4f}) of {old.effect:+.4f}."
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
    sizes = {"small": small, "medium": medium, "paper": paper}
    analysis = Analysis(script, claim, run, judge, sizes)
    asked = _parser(analysis).parse_args(arguments)
    try:
        check_device(asked.device)
        with joined(asked.device) as (_, device):
            code = _search(analysis, asked) if asked.search else _run(analysis, asked, device)
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
            help=f"{study.data}, {len(study.seeds)} seeds, {study.config.steps} steps",
        )  # fmt: skip
    size.add_argument(
        "--search", action="store_true", help="choose hyper-parameters on the validation split"
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
    if not asked.minutes > 0:
        raise ValueError(f"minutes must be > 0; got {asked.minutes:g}.")
    others = ("seeds", "data", "encoder")
    changed = ", ".join(f"--{name}" for name in others if getattr(asked, name) is not None)
    if changed and (asked.keep or asked.search):
        what = "keep" if asked.keep else "search"
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
        minutes=float("inf") if together else asked.minutes,
        quiet=asked.quiet or current_world().rank > 0,
        **changes,
    )


def _search(analysis: Analysis, asked: argparse.Namespace) -> int:
    started = time.monotonic()
    study = replace(_asked_for(analysis.sizes["medium"], asked), device=asked.device)
    study = replace(study, data=study.data.partition("+")[0])  # one search, whatever is planted
    families = [name for name, family in FAMILIES.items() if family.knobs]
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
    if asked.keep or before is None or _differ(before, result):
        return 0
    said = disagreements(before, result)
    for each in said:
        print(each, file=sys.stderr)
    if not said:
        print(f"reproduces {kept}: every effect is within 3 standard errors.", file=sys.stderr)
    return 3 if said else 0


def _differ(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two results are of other settings, so that nothing is to be reproduced."""
    return any(before[name] != now[name] for name in ("seeds", "data", "config", "chosen"))


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
