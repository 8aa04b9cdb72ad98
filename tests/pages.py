"""The README, the pages of the site, and ``.assets/make.py``, which reads and illustrates them."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / ".assets"

_spec = importlib.util.spec_from_file_location("pictures", ASSETS / "make.py")
make = importlib.util.module_from_spec(_spec)
sys.modules["pictures"] = make  # a dataclass looks its module up
_spec.loader.exec_module(make)

TEXT = make.pages()
STEPS = {page: make.steps_of(text) for page, text in TEXT.items()}
SHELL = {page: [step for step in steps if step[:2] != "#!"] for page, steps in STEPS.items()}
PYTHON = {
    page: [step.partition("\n")[2] for step in steps if step[:2] == "#!"]
    for page, steps in STEPS.items()
}
