"""Text and numbers on their way out: on a stream, on a line of a figure, as JSON."""

from __future__ import annotations

import codecs
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_SYMBOLS = {
    "≤": "<=", "≥": ">=", "−": "-", "–": "-", "×": "x", "·": "-", "²": "^2", "…": "...",
    "→": "->", "←": "<-", "±": "+-", "✕": "x",
}  # fmt: skip
_UNSEEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls, such as those that colour a terminal
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # new lines, and text from right to left
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # no characters: no file in UTF-8, or no XML
    "]"
)
_ERRORS = "dimlab-readable"


def visible(text: str, *, keep: str = "\n") -> str:
    """Escape characters that cannot be seen, or that a terminal would obey, except ``keep``."""
    return _UNSEEN.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(),
        text,
    )


def fitted(text: str, most: int) -> str:
    """Leave out the middle of lines longer than ``most`` characters."""
    first, last = (most + 1) // 2, most // 2 - 1
    return "\n".join(
        line if len(line) <= most else f"{line[:first]}…{line[len(line) - last :]}"
        for line in text.split("\n")
    )


def make_streams_readable() -> None:
    """Let stdout and stderr take any text: what their encoding lacks is written in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # streams of notebooks take all text
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def say(sentence: str) -> None:
    """Print a sentence on stderr; characters that a terminal would obey are escaped."""
    print(visible(sentence), file=sys.stderr)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    escaped = (each.encode("ascii", "backslashreplace").decode() for each in lost)
    return "".join(
        _SYMBOLS.get(each, other) for each, other in zip(lost, escaped, strict=True)
    ), error.end


codecs.register_error(_ERRORS, _in_ascii)


def json_text(value: Any) -> str:
    """Write numbers, text, arrays, lists and mappings as strict JSON, infinite ones as null."""
    return json.dumps(plain(value), indent=2, allow_nan=False)


def plain(value: Any, is_known: Callable[[float], bool] = math.isfinite) -> Any:
    """Replace arrays by lists, and numbers that are not known, or not finite, by None."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(each, is_known) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, is_known) for each in value]
    return None if isinstance(value, float) and not is_known(value) else value


def in_words(value: Any) -> str:
    """Write a value of a summary as people read it: four digits, the first twelve of a list."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if np.isfinite(value) else f"{value:.4g}".replace("inf", "infinite")
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_member(each) for each in value[:12])
        return (shown or "none") + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {in_words(each)}" for key, each in value.items())
    return str(value)


def _member(value: Any) -> str:
    """Write a member of a list; a list within it in brackets, unless it has one member."""
    if not isinstance(value, (list, tuple)):
        return in_words(value)
    inner = in_words(value)
    return inner if len(value) == 1 else f"({inner})"
