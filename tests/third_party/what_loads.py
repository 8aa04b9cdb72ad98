"""Write the table of what loads, is assumed or refused, from files that other packages make now.

Run ``pip install -r tests/third_party/requirements.txt``, then this file: it writes
``.docs/what-loads.md``.
"""

import importlib
import os
import re
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # run as a script: these are found only now

from dimlab import load_encoder, load_features  # noqa: E402 - found now
from tests.third_party.cases import CASES, Case  # noqa: E402 - found now
from tests.third_party.of_features import (  # noqa: E402 - found now
    FEATURES,
    FILES,
    LABELS,
    FeatureCase,
)

for name in ("of_official", "of_timm", "of_torchvision", "of_transformers"):
    importlib.import_module(f"tests.third_party.{name}")  # which add their cases

PAGE = ROOT / ".docs" / "what-loads.md"
HEAD = """# What loads, what is assumed, what is refused

Each row is a file or folder that the package in the second column wrote, with the flags that
`dimlab encode` was given; [files of features](#files-of-features) follow. The features of what
loads are those of the package itself to 1e-5. Where weights do not show how a network is built,
dimlab prints a line `assumed: ...` with the flag that changes it. Rows marked *other network* are
built otherwise than assumed: only that line tells.
`tests/third_party/what_loads.py` makes all of these files again and writes this page.

| file | written by | flags | what happens |
|---|---|---|---|
"""

FEATURE_HEAD = """
## Files of features

The features and labels of what loads are those that were written. Flags are those of the commands;
`load_features` has the same.

| file | written by | flags | what happens |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Seen:
    """What became of a case."""

    assumed: list[str]
    refused: str = ""
    difference: float = float("nan")  # the largest, from the package's own features


def seen(case: Case, folder: Path) -> Seen:
    """Let a package write a case's file, load it, and compare features with its own."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        made = case.make(folder / "x")
        images = torch.randn(2, made.channels, made.size, made.size)
        try:
            loaded = load_encoder(made.path, **case.flags)
        except ValueError as error:
            return Seen([], str(error))
        with torch.no_grad():
            found, expected = loaded.module(images), made.features(images).flatten(1)
    return Seen(loaded.assumed, "", float((found - expected).abs().max()))


def seen_features(case: FeatureCase, folder: Path) -> Seen:
    """Let a package write a file of features, load it, and compare it with what was written."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = case.make(folder)
        said.clear()
        try:
            loaded = load_features(path, **case.flags)
        except (ValueError, FileNotFoundError) as error:
            return Seen([], str(error).replace(f"{folder}/", ""))
    assumed = [str(each.message).partition("assumed: ")[2] for each in said]
    rows = np.argsort(loaded.features[:, 0], kind="stable")
    expected = np.argsort(FEATURES[:, 0], kind="stable")
    difference = float(np.abs(loaded.features[rows] - FEATURES[expected]).max())
    labels = None if loaded.labels is None else loaded.labels[rows]
    if case.labels != (labels is not None) or (
        labels is not None and not np.array_equal(labels, LABELS[expected])
    ):
        difference = float("inf")
    return Seen([each for each in assumed if each], "", difference)


def flags_of(flags: dict[str, Any]) -> str:
    """Return flags as the command line spells them."""
    words = []
    for name, value in flags.items():
        for each in value if isinstance(value, list) else [value]:
            words.append(f"`--{name.replace('_', '-')} {each}`")
    return " ".join(words)


def row(case: Case | FeatureCase, found: Seen) -> str:
    """Return a case's row of the table."""
    said = [re.sub(r" ?\([^()]*\)", "", each).partition(";")[0] for each in found.assumed]
    if found.refused:
        what = f"refused: {found.refused}"
    elif isinstance(case, Case) and case.wrong:
        what = "*other network*; assumed: " + "; ".join(said)
    else:
        what = "loads" + (f"; assumed: {'; '.join(said)}" if said else "")
    what = what.replace("|", "\\|")
    return f"| {case.name} | {case.versions} | {flags_of(case.flags)} | {what} |"


def main() -> None:
    """Write the page."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    tables = []
    for head, cases, look in ((HEAD, CASES, seen), (FEATURE_HEAD, FILES, seen_features)):
        lines = []
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                lines.append(row(case, look(case, Path(folder))))
            print(lines[-1], flush=True)
        tables.append(head + "\n".join(lines) + "\n")
    PAGE.write_text("".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
