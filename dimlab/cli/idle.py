"""Options that can do nothing in a call are refused: nobody believes that they did something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.cli.derive import Option

Values = Mapping[str, Any]
_NO_READER = {"none", ""}


def _others_than(reader: str) -> Callable[[Values], bool]:
    """Return whether a call has readers, and this one is not among them."""

    def without(values: Values) -> bool:
        named = values.get("readers") or [values.get("reader") or ""]
        return not _NO_READER >= {*named} and reader not in named

    return without


# names of options, when they do nothing, and why
_IDLE: tuple[tuple[str, Callable[[Values], bool], str], ...] = (
    ("train", lambda values: "split" in values and values.get("basis", "") is None,
     "without --basis, which is fitted on it"),
    ("figure_format", lambda values: values.get("out", "") is None, "without --out"),
    ("k temperature", _others_than("knn"), "unless the reader is knn"),
    ("penalty", _others_than("ridge"), "unless the reader is ridge"),
    ("n_random", lambda values: values.get("order", "random") != "random",
     "unless --order is random"),
    ("views", lambda values: values.get("within", False), "with --within"),
    ("in_distribution", lambda values: values.get("erase") == "none", "with --erase none"),
    ("k", lambda values: values.get("n_rows") == 0, "with --rows 0"),
    ("train array labels max_queries max_train reader n_permutations seed device",
     lambda values: "check" in values and values["sources"][0].is_dir(),
     "for the folder of a report, of which nothing is measured again"),
    ("sigmoid", lambda values: values.get("key", "") is None, "without --key"),
)  # fmt: skip


def refuse_idle(options: Iterable[Option], values: Values) -> None:
    """Refuse options that the others make idle."""
    known = {each.name: each for each in options}
    for names, is_idle, why in _IDLE:
        if is_idle(values):
            for each in (known[name] for name in names.split() if name in known):
                refuse_given(each.flag.removeprefix("--"), values[each.name], each.default, why)


def refuse_given(name: str, value: Any, default: Any, why: str) -> None:
    """Refuse a value that is not the default."""
    if value not in (None, default, []):
        got = value if isinstance(value, int | float) else repr(str(value))
        raise Refusal(f"{name} must be left out {why}; got {got}.")
