"""One thread that draws and logs behind training, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

Task: TypeAlias = Callable[[], None]

ROOM = 8
"""Tasks that may wait; one more holds training until there is room, so that pictures never pile up in memory."""


class Worker:
    """Runs tasks one after the other in a thread of its own.

    Tasks deal with their own exceptions, and touch no global random number generator: DataLoader workers that are
    forked meanwhile would inherit its lock.
    """

    def __init__(self) -> None:
        self._tasks: queue.Queue[Task | None] = queue.Queue(ROOM)
        self._thread = threading.Thread(target=self._run, name="lightning_xai", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Run it after those before it."""
        self._tasks.put(task)

    def flush(self) -> None:
        """Wait until everything submitted has run."""
        self._tasks.join()

    def stop(self) -> None:
        """Run what waits, then end the thread."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            # whatever a task lets through: a thread that ended would hold training at a full queue for good
            with suppress(BaseException):
                task()
            self._tasks.task_done()
        self._tasks.task_done()
