"""The command line's door: one application, one sentence on errors, exit codes."""

from __future__ import annotations

import os
import sys

import typer

from dimlab.sources import Unreadable
from dimlab.terminal import GateMet
from dimlab.text import make_streams_readable, say

DONE, FAILED, MISUSED, GATED = 0, 1, 2, 3
_CTRL_C = 130

app = typer.Typer(
    name="dimlab",
    help="Look inside self-supervised representations one dimension at a time.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line: one sentence on stderr and exit code 1 or 2 on errors."""
    make_streams_readable()
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    command = next((each for each in arguments if not each.startswith("-")), "")
    prefix = f"dimlab {command}".strip()
    try:
        code = app(arguments, standalone_mode=False) or DONE
        if code == _CTRL_C:  # typer turns Ctrl-C into a code of its own
            raise KeyboardInterrupt
        sys.exit(code)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        sentence, code = _explain(error)
        say(f"{prefix}: {sentence}")
        sys.exit(code)


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", FAILED
    if isinstance(error, GateMet):
        return str(error), GATED
    if isinstance(error, Unreadable):
        return str(error), FAILED
    if hasattr(error, "format_message"):  # what typer raises: unknown flag, value of the wrong type
        return f"{error.format_message()} See --help.", MISUSED
    if isinstance(error, (ValueError, TypeError, FileNotFoundError)):
        return str(error), MISUSED
    if isinstance(error, OSError):
        if error.filename is None:
            return str(error), FAILED
        return f"{error.filename}: {error.strerror or error}.", FAILED
    if isinstance(error, MemoryError):
        return str(error) or "out of memory.", FAILED
    return f"internal error, {type(error).__name__}: {error} (--debug shows where).", FAILED
