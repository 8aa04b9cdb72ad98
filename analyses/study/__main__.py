"""Write the table of verdicts and its pages: ``python analyses/study``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path; the package is found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from study.table import main

    raise SystemExit(main(sys.argv[1:]))
