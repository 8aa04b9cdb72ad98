"""What the analyses share: a study's runs, verdicts over seeds, the search, the command line."""

from dimlab.study.analysis import main
from dimlab.study.families import FAMILIES, KNOBS, Family, tried_configurations
from dimlab.study.search import read_search, search
from dimlab.study.sweep import OutOfTime, Run, Study
from dimlab.study.verdict import Verdict, best_of, check_whole, judged, paired

__all__ = [
    "FAMILIES",
    "KNOBS",
    "Family",
    "OutOfTime",
    "Run",
    "Study",
    "Verdict",
    "best_of",
    "check_whole",
    "judged",
    "main",
    "paired",
    "read_search",
    "search",
    "tried_configurations",
]  # fmt: skip
