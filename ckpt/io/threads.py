"""Threads, as far as the system has them to give.

Law: work that no thread can be started for is done by the caller.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A pool whose caller works too where a limit on processes or memory refuses a thread."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `work` once, in a thread or here."""
        future: Future[T] = Future()
        turn = Lock()

        def run() -> None:
            # The queue of a pool keeps what it could start no thread for.
            if not turn.acquire(blocking=False) or not future.set_running_or_notify_cancel():
                return
            try:
                result = work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - of the one who asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        try:
            super().submit(run)
        except RuntimeError:  # "can't start new thread"
            run()
        return future
