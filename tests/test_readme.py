"""The README's promises: its set-up lines, its Python, its figure."""

import ast
import re
from pathlib import Path

import dimlab

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_two_set_up_commands_stand_on_lines_of_their_own():
    lines = README.splitlines()
    assert "pip install -e . && dimlab demo" in lines
    assert 'pip install -e ".[dev]" && pytest' in lines
    first = lines.index("pip install -e . && dimlab demo")
    assert lines[first - 1] == "python3 -m venv .venv && . .venv/bin/activate"


def test_the_figures_are_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_its_python_uses_public_names_and_its_commands_exist():
    from dimlab.cli import app

    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert {alias.name for alias in node.names} <= set(dimlab.__all__)
    commands = {each.name or each.callback.__name__ for each in app.registered_commands}
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    used = set(re.findall(r"\bdimlab ([a-z-]+)", shell))
    assert {"demo", "train", "ablate"} <= used <= commands
