"""The command line of an analysis: run a size, judge, compare with what is kept, write."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.devices import check_device
from dimlab.io.files import replacing
from dimlab.processes import current_world, joined
from dimlab.text import make_streams_readable
from dimlab.training.config import TrainConfig
from dimlab.training.loop import TrainingStopped
from study.compare import alike, disagreements
from study.families import FAMILIES
from study.judgement import Judgement
from study.search import (
    VARIED,
    read_search,
    search,
    vary,
    with_rows,
    write_search,
    write_varied,
)
from study.sweep import AUGMENTATION, TRAINING, OutOfTime, Study, stopping

if TYPE_CHECKING:
    from pandas import DataFrame

EXPECTED, RESULTS, SEARCH = "expected", "results", "search.json"
ROWS = "natural/rows.jsonl"  # finished runs of the natural size
SIZES = ("small", "medium", "natural", "paper")
_CHUNK, _PAPER_CHUNK = 45.0, 9.0  # minutes


@dataclass(frozen=True)
class Analysis:
    """A claim, and how it is tested.

    ``script`` lies in a folder with ``expected/`` and ``results/``. ``run(study)`` returns a table
    of one row a run, nothing aggregated; ``judge(table)`` returns a `Judgement`. ``sizes`` has
    the studies ``small``, ``medium``, ``natural`` and ``paper``.
    """

    script: Path
    claim: str
    run: Callable[[Study], DataFrame]
    judge: Callable[[DataFrame], Judgement]
    sizes: dict[str, Study]

    def kept(self, size: str) -> Path:
        """Return where the numbers of a size are kept; the file may not exist."""
        if size == "small":
            return self.script.parent / EXPECTED / f"{self.script.stem}.json"
        name = self.script.stem + ("" if size == "medium" else f"-{size}")
        return self.script.parent / RESULTS / f"{name}.json"

    @property
    def search(self) -> Path:
        """Return where the search's choices are kept, for every analysis of the folder."""
        return self.script.parent / RESULTS / SEARCH

    def of_size(self, size: str) -> Study:
        """Return the study of a size, with what the search chose where there is one."""
        study = self.sizes[size]
        if size == "natural":
            return with_rows(study, self.script.parent / RESULTS / ROWS)
        return study.with_search(self.search) if size == "medium" else study

    def judged(self, table: DataFrame, size: str) -> Judgement:
        """Judge; the small size is always undecided."""
        judgement = self.judge(table)
        return judgement.never_decided() if size == "small" else judgement

    def result(self, study: Study) -> dict[str, Any]:
        """Run and judge; return the claim, the judgement, the settings and the rows for JSON."""
        from dimlab.report.provenance import environment

        table = self.run(study)
        # where the runs were made, which may be on several machines
        places = table.attrs.get("environments") or [environment()]
        return {
            "claim": self.claim,
            "script": self.script.name,
            "size": study.size,
            "verdict": self.judged(table, study.size).to_dict(),
            "seeds": list(study.seeds),
            "data": study.data_name,
            "device": study.device,
            "config": study.config.to_dict(),
            "augmentation": AUGMENTATION,
            "training": TRAINING,
            "chosen": {name: dict(each) for name, each in study.chosen.items()},
            "seconds": round(float(table[["train_seconds", "measure_seconds"]].sum().sum()), 1),
            "environment": places[0],
            **({"further_environments": places[1:]} if len(places) > 1 else {}),
            "rows": json.loads(table.to_json(orient="records", double_precision=8)),
        }


def main(
    claim: str,
    run: Callable[[Study], DataFrame],
    judge: Callable[[DataFrame], Judgement],
    small: Study,
    medium: Study,
    natural: Study,
    paper: Study,
    *,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run an analysis from the shell, and exit.

    Exit codes: 0 done; 1 the minutes are over (the same command goes on) or a file cannot be
    written; 2 the command line or its input is wrong; 3 the kept numbers are not reproduced.
    """
    script = Path(str(sys.modules[run.__module__].__file__)).resolve()
    sizes = dict(zip(SIZES, (small, medium, natural, paper), strict=True))
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
    except (TrainingStopped, KeyboardInterrupt):
        print("stopped; what is done is kept, and the same command goes on.", file=sys.stderr)
        code = 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
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
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"after these ({_CHUNK:g}) no run "
        f"begins; with --paper ({_PAPER_CHUNK:g}) a training is saved, too",
    )
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
    if not _minutes(asked) > 0:
        raise ValueError(f"minutes must be > 0; got {asked.minutes:g}.")
    others = ("seeds", "data", "encoder")
    changed = ", ".join(f"--{name}" for name in others if getattr(asked, name) is not None)
    if changed and (asked.keep or asked.search or asked.vary):
        what = "keep" if asked.keep else "search" if asked.search else "vary"
        raise ValueError(
            f"{what} must come without {changed}, as other runs rely on what it writes; "
            f"got {changed}."
        )
    if study.rows is not None and (asked.data or asked.encoder):
        raise ValueError(
            "natural must come without --data and --encoder, as it trains nothing; got "
            f"{asked.data or asked.encoder}."
        )
    together = current_world().size > 1  # torchrun's processes share every run
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"n_jobs": 1} if together else {}
    return replace(
        study,
        folder=asked.out / "study",
        until=float("inf") if together else time.monotonic() + 60 * _minutes(asked),
        quiet=asked.quiet or current_world().rank > 0,
        **changes,
    )


def _minutes(asked: argparse.Namespace) -> float:
    """Return after how many minutes to stop; a chunk of the paper's size is short."""
    if asked.minutes is None:
        return _PAPER_CHUNK if asked.size == "paper" else _CHUNK
    return float(asked.minutes)


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
    alone = asked.size == "paper" and current_world().size == 1
    # a training of hours is stopped in its course, saved, and goes on with the same command
    with stopping(_minutes(asked)) if alone else nullcontext():
        result = analysis.result(study)
    if current_world().rank > 0:
        return 0
    judgement = Judgement.from_dict(result["verdict"])
    kept = analysis.kept(study.size)
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    written = _write(asked.out, f"{analysis.script.stem}-{study.size}", result, judgement)
    if asked.keep:
        written += _write(kept.parent, kept.stem, result, judgement, in_repository=True)
    if asked.json:
        print(json.dumps(result, indent=1))
    else:
        print(judgement.in_words())
        shown = [os.fspath(path) for path in written if path.suffix == ".json"]
        print(f"wrote {', '.join(shown)}")
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
        print(_agreement(kept, same_machine=alike(before, result)), file=sys.stderr)
    return 3 if said else 0


def _agreement(kept: Path, *, same_machine: bool) -> str:
    """Say what was found to agree, and no more than was asked."""
    if same_machine:
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
        {"augmentation": 1, "training": 1}
        | each
        | {"config": TrainConfig.from_dict(each["config"])}
        for each in (before, now)
    )
    names = ("seeds", "data", "config", "augmentation", "training", "chosen")
    return [name for name in names if before[name] != now[name]]


def judge_again(analysis: Analysis, size: str) -> list[Path]:
    """Judge the rows that are kept once more, after a change of rules or words."""
    import pandas as pd

    path = analysis.kept(size)
    kept = json.loads(path.read_text(encoding="utf-8"))
    judgement = analysis.judged(pd.DataFrame(kept["rows"]), size)
    result = {**kept, "claim": analysis.claim, "verdict": judgement.to_dict()}
    return _write(path.parent, path.stem, result, judgement, in_repository=True)


def _write(
    folder: Path, name: str, result: dict[str, Any], judgement: Judgement, *,
    in_repository: bool = False,
) -> list[Path]:  # fmt: skip
    """Write a result as JSON, its figure, and its rows as CSV where they are not kept as JSON."""
    import pandas as pd

    from dimlab.figures.house import picture_of
    from study.figure import plot_judgement

    files = {}
    if not in_repository:
        files[f"{name}.csv"] = pd.DataFrame(result["rows"]).to_csv(index=False).encode()
    if not (in_repository and result["size"] == "small"):
        files[f"{name}.svg"] = picture_of(plot_judgement, judgement, "svg")
    files[f"{name}.json"] = (json.dumps(result, indent=1) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for each, content in files.items():
        with replacing(folder / each) as temporary:
            temporary.write_bytes(content)
    return [folder / each for each in files]
