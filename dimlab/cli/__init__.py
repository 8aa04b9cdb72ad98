"""The command line: each command loads, encodes, probes and presents."""

from dimlab.cli import (  # noqa: F401 - they register
    ablating,
    attributing,
    inspecting,
    measuring,
    reporting,
    training,
)
from dimlab.cli.app import app, run

__all__ = ["COMMANDS", "app", "run"]

COMMANDS = (
    *("demo", "train", "encode", "evaluate", "report", "inspect"),
    *("ablate", "confirm", "cumulate", "random-masks"),
    *("correlate", "decompose", "redundancy", "compare"),
    *("attribute", "erase", "locate", "follow", "bound"),
)
app.registered_commands.sort(
    key=lambda each: COMMANDS.index(each.name or each.callback.__name__)  # type: ignore[union-attr]
)
