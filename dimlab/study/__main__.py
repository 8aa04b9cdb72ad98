"""Write the table of verdicts: ``python -m dimlab.study analyses``."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from dimlab.study.analysis import SIZES, Analysis, judge_again
from dimlab.study.verdict_table import write_verdict_table
from dimlab.text import make_streams_readable


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dimlab.study", description=__doc__)
    parser.add_argument("folder", type=Path, help="of analyses, with results/ and README.md")
    parser.add_argument(
        "--judge", action="store_true", help="judge the rows that are kept again, before"
    )
    make_streams_readable()
    asked = parser.parse_args(arguments)
    try:
        written = _judge(asked.folder) if asked.judge else []
        written.append(write_verdict_table(asked.folder))
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
        raise ValueError(f"folder must hold scripts of Python; got {script}.")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {size: getattr(module, size.upper()) for size in SIZES}
    return Analysis(script, module.CLAIM, module.run, module.judge, sizes)


if __name__ == "__main__":
    raise SystemExit(_run(sys.argv[1:]))
