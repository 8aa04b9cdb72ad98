"""What the analyses share: a study's runs, judgements over seeds, the search, the command line."""

from study.analysis import main
from study.families import FAMILIES, KNOBS, Family, tried_configurations
from study.judgement import Judgement, best_of, check_whole, judged, paired
from study.search import read_search, search
from study.sweep import OutOfTime, Run, Study

__all__ = [
    "FAMILIES",
    "KNOBS",
    "Family",
    "Judgement",
    "OutOfTime",
    "Run",
    "Study",
    "best_of",
    "check_whole",
    "judged",
    "main",
    "paired",
    "read_search",
    "search",
    "tried_configurations",
]  # fmt: skip
