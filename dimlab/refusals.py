"""Errors that the user causes: the command line answers them in one sentence, without a log."""

from __future__ import annotations


class Refusal(ValueError):
    """An argument, or what it names, is refused; any other ``ValueError`` is a mistake of ours."""


class WrongType(Refusal, TypeError):
    """An argument of a type that is refused."""


class Damaged(Refusal):
    """A file that is there and is named rightly, but cannot be used."""
