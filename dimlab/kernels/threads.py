"""Blocks of work on several threads with one core each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


def on_threads(function: Callable[[Part], Found], parts: Sequence[Part]) -> Iterator[Found]:
    """Give what the function makes of each part, in order, as many at once as torch has threads."""
    # Threads within an operation meet at its end, thousands of times a second; beside other
    # processes each meeting waits for the scheduler. Blocks meet once.
    before = torch.get_num_threads()
    n_at_once = min(before, len(parts))
    if n_at_once < 2:
        yield from map(function, parts)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            n_at_once, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            waiting: deque[Future[Found]] = deque()
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) > n_at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)
