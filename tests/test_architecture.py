"""The house: who imports whom, what an import costs, what every probe has."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import dimlab.cli

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "dimlab", ROOT / "tests"
COMPARISONS = {
    "allclose",
    "array_equal",
    "equal",
    "equals",
    "isclose",
    "identical",
    "broadcast_equals",
}

LAYERS = [  # from the floor up; a room imports only from rooms below its own, or from its own wing
    {"devices", "names", "outside", "processes", "refusals", "text"}
    | {"io.files", "io.harmless", "io.unpickle"},  # what checkpoints and others are read with
    {
        "representation",
        "checks",
        "result",
        "result_file",
        "moments",
        "pairing",
        "clusters",
        "mask",
        "basis",
        "readers",
        "kernels",
        "columns",
        "given",
        "targets",
    }
    | {"cuts", "decoding", "images", "planted", "datasets"},
    {"probes", "training"},
    {"figures", "_encode", "_loaders", "_scratch", "_locate", "io"},
    {"factor_table"},
    {"report", "_explore", "answers", "baselines", "_prune", "_examine", "terminal"}
    | {"_claims", "_validate"},
    {"demo"},
    {"cli"},
]
WINGS = {"probes", "training"}


def room_of(module):
    """Package or module below dimlab; of a package on two levels the module."""
    parts = module.split(".")[1:3]
    rooms = set().union(*LAYERS)
    return next((name for name in (".".join(parts), *parts[:1]) if name in rooms), parts[0])


def level_of(room):
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def imports_of(path):
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "dimlab":
                yield from (f"dimlab.{alias.name}" for alias in node.names)
            else:
                yield node.module


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(".".join(["dimlab", *path.relative_to(PACKAGE).with_suffix("").parts]))
        if room not in ("__init__", "__main__"):
            yield room, path


def test_every_room_has_a_level():
    assert {room for room, _ in sources()} <= set().union(*LAYERS)


def test_imports_point_down_only():
    for room, path in sources():
        for module in imports_of(path):
            if not module.startswith("dimlab.") or module == "dimlab.__version__":
                continue
            other = room_of(module)
            if other == room:
                continue
            allowed = level_of(other) < level_of(room) or (
                level_of(other) == level_of(room) and not {room, other} & WINGS
            )
            assert allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize(
    ("room", "banned"),
    [
        ("probes", {"matplotlib", "seaborn", "typer", "rich"}),
        ("training", {"matplotlib", "seaborn", "typer", "rich"}),
        ("figures", {"torch"}),
        ("kernels", {"matplotlib", "pandas"}),
        ("report", {"torch"}),
    ],
)
def test_rooms_stay_free_of(room, banned):
    for path in (path for name, path in sources() if name == room):
        found = {module.split(".")[0] for module in imports_of(path)} & banned
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_nothing_imports_torchvision():
    for _, path in sources():
        assert not {module.split(".")[0] for module in imports_of(path)} & {"torchvision", "timm"}


def test_importing_dimlab_costs_nothing():
    code = (
        "import sys, time; started = time.perf_counter(); import dimlab; "
        "spent = time.perf_counter() - started; "
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'kornia'} & set(sys.modules); "
        "print(f'{spent:.3f}', *sorted(heavy))"
    )
    times = []
    for _ in range(3):  # the fastest of three: a busy machine is not the package's fault
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        assert output[1:] == []
        times.append(float(output[0]))
    assert min(times) < 0.3


def test_every_public_name_is_there():
    for name in dimlab.__all__:
        assert getattr(dimlab, name) is not None
    assert set(dimlab.__all__) <= set(dir(dimlab))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dimlab.nothing


def test_no_module_hides_a_function_of_its_name():
    modules = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert modules & set(dimlab.__all__) == {"datasets", "readers"}


def test_every_probe_keeps_the_contract():
    import dimlab.probes
    from dimlab.cli.door import OURS

    probed = {target for target, _ in OURS.values()}
    for name in dimlab.probes.__all__:
        module = importlib.import_module(f"dimlab.probes.{name}")
        probe = getattr(module, name)
        first = next(iter(inspect.signature(probe).parameters.values()))
        assert first.annotation.removesuffix(" | None") in (
            "RepresentationLike",
            "RowsLike",
            "Mapping[str, RepresentationLike]",
            "MaskTrace",
        )
        result = getattr(module, inspect.signature(probe).return_annotation)
        assert callable(result.to_frame)
        assert callable(result.summary)
        for section in ("Parameters", "Returns", "Raises", "References"):
            assert f"{section}\n    ---" in probe.__doc__, f"{name} lacks {section}"
        assert (TESTS / "probes" / f"test_{name}.py").is_file()
        assert f"dimlab.probes.{name}:{name}" in probed


def test_files_stay_short():
    """A file past 500 lines is asked what else moved in."""
    sizes = {path: len(path.read_text().splitlines()) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {path.name: size for path, size in sizes.items() if size > 500} == {}


def test_no_comparison_is_thrown_away():
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = getattr(node.value.func, "attr", getattr(node.value.func, "id", None))
                assert called not in COMPARISONS, f"{path}:{node.lineno} compares and ignores it"


def test_a_sentence_on_a_value_is_a_refusal():
    """The command line takes a plain ``ValueError`` for a mistake of ours."""
    for _, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            made = isinstance(node, ast.Call) and getattr(node.func, "id", "")
            assert made != "ValueError", f"{path}:{node.lineno} must be a Refusal"


def test_only_tests_assert():
    for _, path in sources():
        asserts = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)
        ]
        assert not asserts, path
