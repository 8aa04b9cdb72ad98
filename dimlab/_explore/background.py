"""Computations of the explorer in the background, while no control is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable

_IDLE = 0.3  # seconds without a change before the job begins


class WhenIdle:
    """A job that runs in a thread once nothing has changed for a while; a change cancels it."""

    # the job asks ``cancelled`` now and then; ``failed`` is told what it raised
    def __init__(
        self, job: Callable[[Callable[[], bool]], None], failed: Callable[[Exception], None]
    ) -> None:
        self._job, self._failed = job, failed
        self._stop, self._thread = threading.Event(), threading.Thread()

    def cancel(self) -> None:
        """Tell the job to stop."""
        self._stop.set()

    def restart(self) -> None:
        """Cancel the job and begin it again when there is time."""
        self.cancel()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._thread, self._stop), name="dimlab-explore", daemon=True
        )
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job to end; whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, previous: threading.Thread, stop: threading.Event) -> None:
        if previous.ident is not None:
            previous.join()  # never two at once
        if stop.wait(_IDLE):
            return
        try:
            self._job(stop.is_set)
        except Exception as error:  # shown, wherever it came from
            self._failed(error)
