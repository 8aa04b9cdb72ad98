"""What the analyses share: a study's runs, verdicts over seeds, the search, the command line."""

from dimlab.study.families import FAMILIES, KNOBS, Family, tried_configurations
from dimlab.study.search import read_search, search
from dimlab.study.sweep import OutOfTime, Run, Study
from dimlab.study.verdict import Verdict, judged

__all__ = [
    "FAMILIES", "KNOBS", "Family", "OutOfTime", "Run", "Study", "Verdict", "judged", "read_search",
    "search", "tried_configurations",
]  # fmt: skip
