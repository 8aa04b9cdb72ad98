"""Write the table of verdicts: ``python -m dimlab.study analyses``."""

import sys
from pathlib import Path

from dimlab.study.verdict_table import write_verdict_table


def _run(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m dimlab.study FOLDER", file=sys.stderr)
        return 2
    try:
        print(f"wrote {write_verdict_table(Path(arguments[0]))}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(_run(sys.argv[1:]))
