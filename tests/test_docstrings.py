"""Every public docstring: what quantity, which shapes, which errors, what source, and an example.

What is public: ``dimlab.__all__``, the data sets, the losses, and what their classes define. Each
check returns complaints; the last test sees that every check complains where it should.
"""

import ast
import dataclasses
import doctest
import inspect
import itertools
import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

import dimlab.probes
from dimlab.result import column, entries, entry
from dimlab.training import losses

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
ORDER = ["Parameters", "Returns", "Yields", "Raises", "Warns", "Notes", "References", "Examples"]
OF_YOUR_OWN = {"huggingface", "image_folder", "npz", "table"}  # data sets that nobody published
SHAPE = re.compile(r"\(\w+,[^)]*\)|of shape \(\)|of any shape")


def exported():
    """Functions and classes by dotted name."""
    names = [name for name in dimlab.__all__ if name not in ("__version__", "datasets", "readers")]
    return {
        **{f"dimlab.{name}": getattr(dimlab, name) for name in names},
        **{f"datasets.{name}": getattr(dimlab.datasets, name) for name in dimlab.datasets.__all__},
        **{f"readers.{name}": getattr(dimlab.readers, name) for name in dimlab.readers.__all__},
        **{f"losses.{name}": getattr(losses, name) for name in losses.__all__},
    }


def members_of(owner):
    """Public methods and properties that a class defines itself."""
    kinds = (types.FunctionType, classmethod, staticmethod, property)
    shown = (entry, entries, column)  # summary and table show these
    found = {
        name: each
        for name, each in vars(owner).items()
        if isinstance(each, kinds) and not isinstance(each, shown)
    }
    return {name: each for name, each in found.items() if not name.startswith("_")}


def public():
    """All of it: exported names and, of exported classes, their members."""
    found = dict(exported())
    for name, each in exported().items():
        if inspect.isclass(each):
            found |= {f"{name}.{member}": value for member, value in members_of(each).items()}
    return found


def function_of(each):
    """Function behind a method or property; classes stay what they are."""
    if isinstance(each, property):
        return each.fget
    return each.__func__ if isinstance(each, classmethod | staticmethod) else each


def sections_of(each):
    """Text of each section of a numpydoc docstring; the summary and more under an empty name."""
    text = inspect.cleandoc(function_of(each).__doc__ or "")
    parts = re.split(r"^(\w+)\n-{3,}\n", text, flags=re.M)
    return dict(zip(["", *parts[1::2]], [parts[0], *parts[2::2]], strict=True))


def entries_of(text):
    """Entries of a section: the line of names and type, and what stands beneath it."""
    heads = [block.partition("\n")[::2] for block in re.split(r"\n(?=\S)", text)]
    return [(head, rest) for head, rest in heads if head]


def names_in(text):
    """Names that a section documents."""
    heads = [head.partition(" : ")[0] for head, _ in entries_of(text)]
    return {name.strip(" *") for head in heads for name in head.split(",")}


def tree_of(each):
    return ast.parse(textwrap.dedent(inspect.getsource(function_of(each))))


def documented_beneath(each):
    """Fields that have a docstring of their own beneath them."""
    pairs = itertools.pairwise(tree_of(each).body[0].body)
    strings = [(a, b) for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)]
    return {a.target.id for a, b in strings if isinstance(b.value, ast.Constant) and b.value.value}


def uncaught(function):
    """Nodes of a function's text that no ``except`` of its own stands behind."""
    tree = tree_of(function)
    tried = [each for each in ast.walk(tree) if isinstance(each, ast.Try) and each.handlers]
    caught = {id(node) for each in tried for part in each.body for node in ast.walk(part)}
    return [node for node in ast.walk(tree) if id(node) not in caught]


AS_DOCUMENTED = {"Refusal": "ValueError", "Misnamed": "ValueError", "WrongType": "TypeError"}


def raised_in(function):
    """Names of the exceptions that stand behind ``raise`` in a function's own text."""
    raised = [node.exc for node in uncaught(function) if isinstance(node, ast.Raise)]
    calls = [each.func if isinstance(each, ast.Call) else each for each in raised if each]
    names = {each.id for each in calls if isinstance(each, ast.Name) and each.id[0].isupper()}
    return {AS_DOCUMENTED.get(name, name) for name in names}


def reached_from(function):
    """The function and dimlab's functions that it calls by their bare names."""
    names = {
        node.func.id
        for node in uncaught(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    called = [function.__globals__.get(name) for name in sorted(names)]
    return [function] + [
        each for each in called if inspect.isfunction(each) and each.__module__.startswith("dimlab")
    ]


# The checks: each takes an object and gives the complaints -----------------------------------


def complaints_of_the_summary(each):
    lines = sections_of(each)[""].splitlines()
    if not lines or not re.fullmatch(r".{3,}\.", lines[0].strip()):
        return ["the first line must be a sentence"]
    return ["the second line must be empty"] if len(lines) > 1 and lines[1] else []


def complaints_of_the_order(each):
    found = [name for name in sections_of(each) if name]
    known = [name for name in ORDER if name in found]
    return [] if found == known else [f"sections must come as {', '.join(known)}; got {found}"]


def complaints_of_the_parameters(each):
    if isinstance(each, property):
        return []
    wanted = {*inspect.signature(function_of(each)).parameters} - {"self", "cls", "_"}
    known = names_in(sections_of(each).get("Parameters", ""))
    if dataclasses.is_dataclass(each):
        known |= documented_beneath(each)
    missing = [f"parameter {name} is not documented" for name in sorted(wanted - known)]
    return missing + [f"there is no parameter {name}" for name in sorted(known - wanted)]


def complaints_of_the_defaults(each):
    if isinstance(each, property):
        return []
    parameters, found = inspect.signature(function_of(each)).parameters, []
    for head, _ in entries_of(sections_of(each).get("Parameters", "")):
        name, _, kind = head.partition(" : ")
        said = re.search(r"default=(.+)", kind)
        if said and name in parameters:
            default = parameters[name].default
            if ast.literal_eval(said[1]) != default:
                found.append(f"{name} is {default!r} by default, not {said[1]}")
    return found


def complaints_of_what_is_returned(each):
    if inspect.isclass(each) or isinstance(each, property):
        return []
    returned = inspect.signature(function_of(each)).return_annotation
    if returned in (None, "None") or {"Returns", "Yields"} & set(sections_of(each)):
        return []
    return ["what is returned is not documented"]


def complaints_of_shapes(each):
    if isinstance(each, property):
        is_array = "ndarray" in str(each.fget.__annotations__["return"])
        text = each.fget.__doc__
        return ["an array without a shape"] if is_array and not SHAPE.search(text) else []
    texts = [sections_of(each).get(name, "") for name in ("Parameters", "Returns", "Yields")]
    return [
        f"an array without a shape: {head}"
        for text in texts
        for head, rest in entries_of(text)
        if re.search("ndarray|Tensor", head) and not SHAPE.search(head + rest)
    ]


def complaints_of_errors(each):
    function = function_of(each)
    if inspect.isclass(each):
        function = vars(each).get("__post_init__")
        if function is None:
            return []
    raised = set().union(*map(raised_in, reached_from(function)))
    known = names_in(sections_of(each).get("Raises", ""))
    return [f"{name} is raised and not documented" for name in sorted(raised - known)]


def complaints_of_examples(each):
    text = sections_of(each).get("Examples", "")
    found = [] if ">>> " in text else ["there is no example"]
    return found + (["an example is skipped"] if "SKIP" in text else [])


def complaints_of_sources(each):
    sections = sections_of(each)
    text, listed = "".join(sections.values()), sections.get("References", "")
    cited = set(re.findall(r"\[(\d+)\]_", text)) - set(re.findall(r"^\.\. \[(\d+)\]", listed, re.M))
    return [f"[{number}]_ is not among the references" for number in sorted(cited)]


def complaints_of_a_missing_source(each):
    return [] if "References" in sections_of(each) else ["there is no source"]


def all_complaints(check, objects):
    return [f"{name}: {words}" for name, each in objects.items() for words in check(each)]


@pytest.mark.parametrize(
    "check",
    [
        complaints_of_the_summary,
        complaints_of_the_order,
        complaints_of_the_parameters,
        complaints_of_the_defaults,
        complaints_of_what_is_returned,
        complaints_of_shapes,
        complaints_of_errors,
        complaints_of_sources,
    ],
)
def test_every_public_docstring_is_whole(check):
    assert all_complaints(check, public()) == []


def test_everything_exported_has_an_example():
    assert all_complaints(complaints_of_examples, exported()) == []


def test_every_member_is_shown_in_some_example_of_its_class():
    unseen = []
    for name, each in exported().items():
        if inspect.isclass(each):
            texts = [sections_of(part).get("Examples", "") for part in members_of(each).values()]
            code = " ".join([sections_of(each)["Examples"], *texts])
            shown = set(re.findall(r"\.(\w+)", code))
            unseen += [f"{name}.{member}" for member in members_of(each) if member not in shown]
    assert unseen == []


def test_what_somebody_published_has_a_source():
    objects = exported()
    named = [f"dimlab.{name}" for name in dimlab.probes.__all__]
    named += [f"losses.{name}" for name in losses.__all__]
    named += [f"datasets.{name}" for name in {*dimlab.datasets.__all__} - OF_YOUR_OWN]
    named += [name for name, each in objects.items() if hasattr(each, "summary")]
    named = [name for name in named if name not in ("dimlab.Checkpoint", "dimlab.Inspection")]
    wanted = {name: objects[name] for name in named}
    assert all_complaints(complaints_of_a_missing_source, wanted) == []


def test_every_example_is_run():
    settings = PYPROJECT.read_text()
    assert re.search(r'^addopts = ".*--doctest-modules', settings, re.M)
    assert re.search(r'^testpaths = .*"dimlab"', settings, re.M)
    found = set()
    for module in {function_of(each).__module__ for each in public().values()}:
        finder = doctest.DocTestFinder()  # the one that pytest asks
        found |= {test.name for test in finder.find(sys.modules[module]) if test.examples}
    for name, each in public().items():
        function = function_of(each)
        if ">>> " in function.__doc__:
            assert f"{function.__module__}.{function.__qualname__}" in found, name


# Every check must be able to fail ------------------------------------------------------------


def _refuse():
    raise ValueError


@dataclasses.dataclass
class Bad:
    """Without an end

    Parameters
    ----------
    weights : ndarray
        No shape, and no word of the other field.
    others : int
        There is none.
    """

    weights: int
    size: int
    """Documented beneath."""
    count: int

    def __post_init__(self):
        raise TypeError("always")

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation."""

    def measured(self, rows, n=3) -> int:
        """Measure after [1]_.
        And go on.

        Parameters
        ----------
        n : int, default=2
            How often.

        Raises
        ------
        OSError
            Never.

        Returns
        -------
        ndarray
            No shape.
        """
        _refuse()

    def said(self) -> str:
        """Say it."""


@pytest.mark.parametrize(
    ("check", "each", "expected"),
    [
        (complaints_of_the_summary, Bad, ["the first line must be a sentence"]),
        (complaints_of_the_summary, Bad.measured, ["the second line must be empty"]),
        (
            complaints_of_the_order,
            Bad.measured,
            [
                "sections must come as Parameters, Returns, Raises; "
                "got ['Parameters', 'Raises', 'Returns']"
            ],
        ),
        (
            complaints_of_the_parameters,
            Bad,
            ["parameter count is not documented", "there is no parameter others"],
        ),
        (complaints_of_the_parameters, Bad.measured, ["parameter rows is not documented"]),
        (complaints_of_the_defaults, Bad.measured, ["n is 3 by default, not 2"]),
        (complaints_of_what_is_returned, Bad.said, ["what is returned is not documented"]),
        (complaints_of_shapes, Bad, ["an array without a shape: weights : ndarray"]),
        (complaints_of_shapes, Bad.measured, ["an array without a shape: ndarray"]),
        (complaints_of_shapes, Bad.spread, ["an array without a shape"]),
        (complaints_of_errors, Bad, ["TypeError is raised and not documented"]),
        (complaints_of_errors, Bad.measured, ["ValueError is raised and not documented"]),
        (complaints_of_examples, Bad, ["there is no example"]),
        (complaints_of_sources, Bad.measured, ["[1]_ is not among the references"]),
        (complaints_of_a_missing_source, Bad, ["there is no source"]),
    ],
)
def test_every_check_complains_where_it_should(check, each, expected, monkeypatch):
    monkeypatch.setattr(_refuse, "__module__", "dimlab.bad")  # calls are followed into dimlab only
    assert check(each) == expected


def test_a_skipped_example_is_none():
    def skipped():
        """Say it.

        Examples
        --------
        >>> 1  # doctest: +SKIP
        2
        """

    assert complaints_of_examples(skipped) == ["an example is skipped"]
