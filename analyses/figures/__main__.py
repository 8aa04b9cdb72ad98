"""``python -m figures`` in ``analyses/``: measure what can be measured, draw it, write captions.

A figure that needs a run which is not finished says so, and is drawn of the numbers that are kept
in ``results/figures/``, where there are any. With ``--redraw`` nothing is measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimlab.figures.house import house_style
from dimlab.io.files import replacing
from dimlab.text import make_streams_readable
from figures import NAMES
from figures.place import RESULTS, NotYet, Place

PAGE = "README.md"
_HEIGHTS = {"strips": 5.6, "masks": 5.6}


def drawn(name: str, kept: dict[str, Any], path: Path) -> None:
    """Draw a figure of its kept numbers: the same numbers give the same bytes."""
    from matplotlib.figure import Figure

    with house_style(), replacing(path) as temporary:
        figure = Figure(figsize=(7.5, _HEIGHTS.get(name, 3.6)), layout="constrained")
        module_of(name).draw(kept, figure)
        figure.savefig(temporary, format="svg", metadata={"Date": None}, dpi=150)


def module_of(name: str) -> Any:
    """Return the module of a figure."""
    return importlib.import_module(f"figures.{name}")


def page(results: Path) -> str:
    """Write the page that shows every figure that is there, with its caption."""
    lines = [
        "# Figures", "",
        "Made by one command, in `analyses/`; `--redraw` draws the kept numbers again:", "",
        "```sh",
        "python -m figures --data-dir cifar10.npz --runs runs/natural --encoders FOLDER",
        "```", "",
        "`FOLDER` holds `resnet20-12fca82f.th` and `resnet56-4bfd9763.th` of "
        "github.com/akamaster/pytorch_resnet_cifar10.",
    ]  # fmt: skip
    for name in NAMES:
        path = results / "figures" / f"{name}.json"
        if not path.is_file():
            continue
        kept, module = json.loads(path.read_text(encoding="utf-8")), module_of(name)
        claimed, seen, other = module.caption(kept)
        lines += ["", f"## {module.TITLE}", "", f"![{module.TITLE}](../results/figures/{name}.svg)"]
        lines += ["", f"**The paper claims:** {claimed}", "", f"**Seen here:** {seen}"]
        lines += ["", f"**What would change the conclusion:** {other}"]
        if hasattr(module, "table"):
            lines += ["", *module.table(kept)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], *, page_folder: Path = Path(__file__).parent) -> int:
    """Make the figures that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--data-dir", type=Path, help="the .npz file of CIFAR-10")
    parser.add_argument("--runs", type=Path, default=Path("runs/natural"), help="checkpoints")
    parser.add_argument("--encoders", type=Path, help="folder of the supervised networks")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where numbers are kept")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    make_streams_readable()
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(NAMES):
        parser.error(f"name must be one of {', '.join(NAMES)}; got {', '.join(sorted(unknown))}.")
    place = Place(asked.data_dir, asked.runs, asked.encoders, asked.results)
    folder = asked.results / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in asked.names or NAMES:
        path = folder / f"{name}.json"
        try:
            if not asked.redraw:
                measured = module_of(name).measure(place)
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(measured) + "\n", encoding="utf-8")
        except NotYet as error:
            print(f"{name} {error}", file=sys.stderr)
        if path.is_file():
            drawn(name, json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".svg"))
            print(f"wrote {path.with_suffix('.svg')}")
    with replacing(page_folder / PAGE) as temporary:
        temporary.write_text(page(asked.results), encoding="utf-8")
    print(f"wrote {page_folder / PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
