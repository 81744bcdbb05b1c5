"""Run a function and measure its memory, in a process of its own or in this one."""

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of `function` with ``peak_mb``, the peak memory of its process in 10^6 bytes.

    ``child_mb`` is that of its largest child process.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, function, arguments).result()


def here(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """As `apart`, without the seconds that a process takes; the memory is of all so far."""
    return _measured(function, arguments)


def _measured(function: Callable[..., dict[str, Any]], arguments: Any) -> dict[str, Any]:
    result = function(*arguments)
    sizes = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, _CHILDREN))
    own, child = (size * 1024 / 1e6 for size in sizes)  # getrusage(2): kilobytes
    return {**result, "peak_mb": own, "child_mb": child}


_CHILDREN = resource.RUSAGE_CHILDREN
