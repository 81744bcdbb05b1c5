"""The size of micro-batches, and its halving when memory runs out.

Law: the effective batch, the order of the samples and the gradient stay as they are; only the
micro-batches become smaller.
"""

import re
from dataclasses import dataclass

import torch

from ckpt.errors import OutOfMemoryError
from ckpt.train.watch.events import Callback, Note, ignore

# Texts of plain RuntimeErrors: c10/core/impl/alloc_cpu.cpp, C++'s own, and oneDNN's. The last also
# says "could not create a primitive descriptor", of what it does not support.
_TEXTS = re.compile("DefaultCPUAllocator|bad_alloc|could not create a (memory|primitive$)")
SHORT = (RuntimeError, MemoryError)  # the kinds of errors about memory that is short


@dataclass(slots=True)
class MicroBatchSize:
    """The largest micro-batch.

    Attributes:
        now: Samples, at least 1.
        adapts: Whether it is halved when memory runs out.
        callback: Gets a `Note` for each halving.
    """

    now: int
    adapts: bool = False
    callback: Callback = ignore

    def halve(self, error: Exception) -> None:
        """Halve it after `error`.

        Raises:
            OutOfMemoryError: It does not adapt, or is already 1.
        """
        too_large, self.now = self.now, self.now // 2
        found = f"out of memory with {too_large:,} image{'s' * (too_large != 1)} at once"
        if not self.adapts or too_large == 1:
            hint = "--micro-batch auto  halves it and keeps the effective batch"
            reason = " ".join(str(error).split())[:120]
            raise OutOfMemoryError(
                f"{found}: {reason}", hint=None if self.adapts else hint
            ) from error
        self.callback(Note(f"{found}: now {self.now:,}"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU is out of memory, or the system gave a CPU's allocator none."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _TEXTS.search(str(error)) is not None
