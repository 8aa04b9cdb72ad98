"""The notebooks: thin narratives over the public API; the rules for them are read off the JSON."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dimlab

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = (
    "01_what_is_in_a_dimension",
    "02_watching_a_mask_learn",
    "03_who_carries_the_background",
    "04_compare_checkpoints",
)
MODULES = {"dimlab", "numpy", "pandas", "matplotlib"}
LIMIT_SECONDS = 60
EXECUTE = """
import sys, nbclient, nbformat
book = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(book)
nbclient.NotebookClient(book, timeout=int(sys.argv[3]), kernel_name="python3").execute()
nbformat.write(book, sys.argv[2])
"""

every_notebook = pytest.mark.parametrize("name", NAMES)


def test_these_are_all_notebooks():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{name}.ipynb" for name in NAMES]


@every_notebook
def test_the_file_is_format_4_5_for_python3_and_written_as_jupyter_writes_it(name):
    text = _path(name).read_text()
    book = json.loads(text)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},  # a version would change with every machine
    }
    assert text == json.dumps(book, indent=1, ensure_ascii=False) + "\n"


@every_notebook
def test_nothing_of_a_run_is_stored(name):
    for cell in _cells(name):
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@every_notebook
def test_cell_ids_are_unique_words_that_survive_editing(name):
    ids = [cell["id"] for cell in _cells(name)]
    assert len(set(ids)) == len(ids)
    for each in ids:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each), f"{each} is no name"
        assert len(each) <= 64  # nbformat's limit


@every_notebook
def test_there_are_at_most_20_code_cells_of_at_most_8_lines(name):
    code = _code(name)
    assert 1 <= len(code) <= 20
    for cell in code:
        assert len("".join(cell["source"]).splitlines()) <= 8, cell["id"]


@every_notebook
def test_prose_before_every_code_cell_says_what_to_look_for(name):
    cells = _cells(name)
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    for before, cell in itertools.pairwise(cells):
        if cell["cell_type"] == "code":
            assert before["cell_type"] == "markdown", cell["id"]
            assert re.search(r"\b[Ll]ook\b", "".join(before["source"])), cell["id"]


@every_notebook
def test_prose_before_every_figure_asks_a_question(name):
    cells, n_figures = _cells(name), 0
    for before, cell in itertools.pairwise(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and re.search(r"\bplt\.(figure|subplots)\(", source):
            n_figures += 1
            assert "?**" in "".join(before["source"]), cell["id"]
    assert n_figures > 0


@every_notebook
def test_prose_promises_no_measured_number(name):
    """A number with decimals is the level of q-values, or it stands in the code as a setting."""
    code = "".join("".join(cell["source"]) for cell in _code(name))
    for cell in _cells(name):
        if cell["cell_type"] == "markdown":
            prose = "".join(cell["source"])
            for number in re.findall(r"\d+\.\d+", prose):
                assert number == "0.05" or number in code, f"{cell['id']} promises {number}"
            assert set(re.findall(r"(\d+) ?%", prose)) <= {"95"}, cell["id"]


@every_notebook
def test_nothing_is_defined_and_no_loop_trains(name):
    loops = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in _code(name):
        for node in ast.walk(_parsed(cell)):
            assert not isinstance(node, definitions), cell["id"]
            assert not isinstance(node, ast.While), cell["id"]
            if isinstance(node, loops):
                assert "train" not in _names_called(node), cell["id"]


@every_notebook
def test_imports_are_dimlab_numpy_pandas_and_matplotlib(name):
    imported = set()
    for cell in _code(name):
        for node in ast.walk(_parsed(cell)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module)
    assert "dimlab" in imported
    assert {each.partition(".")[0] for each in imported} <= MODULES
    private = {each for each in imported if each.startswith("dimlab.")}
    assert not private, "the public names are those of dimlab itself"


@every_notebook
def test_only_public_names_of_dimlab_are_used_on_the_data_that_come_along(name):
    used, data = set(), set()
    for cell in _code(name):
        for node in ast.walk(_parsed(cell)):
            if not isinstance(node, ast.Attribute):
                continue
            assert not node.attr.startswith("_"), f"{cell['id']}: {node.attr} is private"
            if isinstance(node.value, ast.Name) and node.value.id == "dimlab":
                used.add(node.attr)
            if isinstance(node.value, ast.Attribute) and node.value.attr == "datasets":
                data.add(node.attr)
    assert used <= set(dimlab.__all__)
    assert data == {"digits"}


@every_notebook
def test_random_numbers_come_from_seeded_functions_of_dimlab_only(name):
    for cell in _code(name):
        for node in ast.walk(_parsed(cell)):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            assert not {"random", "sample", "default_rng"} & set(names), cell["id"]


@pytest.mark.slow
@pytest.mark.parametrize(  # the others are executed with the site, by .ci/full
    "name", [NAMES[0], *(pytest.param(each, marks=pytest.mark.long) for each in NAMES[1:])]
)
def test_it_runs_in_a_minute_and_shows_a_figure_and_a_table(name, tmp_path):
    executed = tmp_path / "executed.ipynb"
    started = _seconds_of_children()
    run = subprocess.run(
        [sys.executable, "-c", EXECUTE, _path(name), executed, str(2 * LIMIT_SECONDS)],
        cwd=tmp_path,
        env={
            **os.environ,
            "IPYTHONDIR": str(tmp_path / "ipython"),  # nobody's start-up files
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "OMP_NUM_THREADS": "1",  # on shared cores, threads that wait for each other cost most
        },
        capture_output=True,
        text=True,
        timeout=4 * LIMIT_SECONDS,
        check=False,
    )
    seconds = _seconds_of_children() - started
    assert run.returncode == 0, run.stderr[-4000:]
    assert seconds < LIMIT_SECONDS
    outputs = [each for cell in _read(executed) for each in cell.get("outputs", ())]
    errors = [each for each in outputs if each["output_type"] == "error"]
    complaints = [each["text"] for each in outputs if each.get("name") == "stderr"]
    shown = [each.get("data", {}) for each in outputs]
    assert not errors
    assert not complaints
    assert any("image/png" in each for each in shown), "no figure"
    assert any("<table" in "".join(each.get("text/html", ())) for each in shown), "no table"


def _seconds_of_children():
    """CPU seconds, which other work on the machine does not change."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _path(name):
    return FOLDER / f"{name}.ipynb"


def _read(path):
    return json.loads(path.read_text())["cells"]


def _cells(name):
    cells = _read(_path(name))
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    return cells


def _code(name):
    return [cell for cell in _cells(name) if cell["cell_type"] == "code"]


def _parsed(cell):
    return ast.parse("".join(cell["source"]))  # a magic command is no Python


def _names_called(node):
    called = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return {getattr(each, "attr", getattr(each, "id", "")) for each in called}
