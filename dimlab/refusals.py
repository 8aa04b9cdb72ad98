"""Errors that the user causes: the command line answers them in one sentence, without a log."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Refusal(ValueError):
    """An argument, or what it names, is refused; any other ``ValueError`` is a mistake of ours."""


class WrongType(Refusal, TypeError):
    """An argument of a type that is refused."""


def refusing(probe: Callable[..., Any]) -> Callable[..., Any]:
    """Take a plain ``ValueError`` of a probe that knows no `Refusal` as one."""

    @functools.wraps(probe)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return probe(*arguments, **named)
        except ValueError as error:
            if type(error) is not ValueError:  # such as one of linear algebra
                raise
            raise Refusal(str(error)) from error

    return call
