"""The command line: each command loads, encodes, probes and presents."""

from dimlab.cli.door import COMMANDS, app, command, run

__all__ = ["COMMANDS", "app", "command", "run"]
