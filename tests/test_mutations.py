"""The table of mutations fits the code, and the runner tells a killed mutation from a survivor."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import mutation_testing as testing
from tests.mutations import TABLE

ROOT = Path(__file__).parents[1]


def test_every_mutation_still_applies_and_its_tests_are_there():
    stale = []
    for each in TABLE:
        try:
            each.applied((ROOT / "dimlab" / each.file).read_text())
        except LookupError as error:
            stale.append(str(error))
        stale += [f"{each}: no test {name}" for name in testing.missing_tests(each, ROOT / "tests")]
    assert not stale, "\n".join(stale)
    assert len(TABLE) >= 110
    assert len({each.key for each in TABLE}) == len(TABLE)


def test_shares_are_parts_of_the_whole_and_do_not_depend_on_its_order():
    parts = [testing.share_of(TABLE, f"{k}/10") for k in range(1, 11)]
    assert sorted(each.key for part in parts for each in part) == sorted(e.key for e in TABLE)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = testing.share_of(TABLE[::-1], "3/10")
    assert {each.key for each in again} == {each.key for each in parts[2]}
    with pytest.raises(ValueError, match="share must be"):
        testing.share_of(TABLE, "0/10")


PACKAGE = '''"""A tiny package."""

SCALE = 2.0


class Line:
    def at(self, x):
        """Two times x, plus 1."""
        return SCALE * x + 1


def largest(values):
    return max(values)
'''
TESTS = """
from tiny.line import Line, largest


def test_a_line():
    assert Line().at(1.0) == 3.0


def test_nothing():
    assert largest([1, 1]) == 1
"""


def test_the_runner_tells_killed_survived_and_broken(tmp_path, capsys):
    for name, text in {"tiny/line.py": PACKAGE, "tests/test_line.py": TESTS}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    cases = {  # outcome: name, old, new, test
        "killed": ("Line.at", "+ 1", "- 1", "test_line.py::test_a_line"),
        "survived": ("largest", "max", "min", "test_line.py::test_nothing"),
        "error: misspelt": ("largest", "max(", "maximum(", "test_line.py::test_nothing"),
        "error: stale": ("Line.at", "+ 2", "- 1", "test_line.py::test_a_line"),
        "error: twice": ("Line.at", "x", "y", "test_line.py::test_a_line"),
    }
    table = [testing.Mutation("line.py", n, old, new, (t,)) for n, old, new, t in cases.values()]
    found = testing.run(table, tmp_path, "tiny", jobs=1)
    assert [each.outcome for each in found] == [name.split(":")[0] for name in cases]
    assert (tmp_path / "tiny/line.py").read_text() == PACKAGE  # only copies are changed
    assert "NameError" in found[2].reason
    text, good = testing.summary(found)
    assert text.startswith("1 of 2 killed (50.0%), 0 survived with an explanation, 1 without, 3")
    assert not good
    assert len(capsys.readouterr().out.splitlines()) == len(cases)
    assert testing.missing_tests(table[0], tmp_path / "tests") == []
    absent = testing.Mutation("line.py", "SCALE", "2", "3", ("test_line.py::test_b", "test_c.py"))
    assert testing.missing_tests(absent, tmp_path / "tests") == list(absent.tests)


def test_survivors_are_explained_and_explanations_are_of_survivors():
    explained = testing.Mutation("line.py", "SCALE", "2.0", "4.0 / 2", (), "the same number")
    assert testing.summary([testing.Finding(explained, "survived", "", 0.0)])[1]
    assert not testing.summary([testing.Finding(explained, "killed", "", 0.0)])[1]


@pytest.mark.parametrize(
    ("code", "message", "outcome"),
    [
        (0, None, "survived"),
        (1, "assert 3.0 == 1.0", "killed"),
        (1, "ValueError: x must be positive; got -1.", "killed"),
        (1, "numpy.linalg.LinAlgError: Singular matrix", "killed"),
        (1, "NameError: name 'maximum' is not defined", "error"),
        (1, "collection failure", "error"),
        (1, None, "error"),
        (2, "ImportError: cannot import name 'at'", "error"),
        (4, None, "error"),
        (5, None, "error"),
    ],
)
def test_only_a_test_that_failed_has_noticed_anything(code, message, outcome):
    report = ElementTree.Element("testsuite")
    if message:
        case = ElementTree.SubElement(report, "testcase", name="test_a")
        ElementTree.SubElement(case, "failure", message=message)
    assert testing._verdict(code, report)[0] == outcome
