"""The size of micro-batches, and its halving when memory runs out.

Law: the effective batch, the order of the samples and the gradient stay as they are; only the
micro-batches become smaller.
"""

from dataclasses import dataclass

import torch

from ckpt.errors import OutOfMemoryError
from ckpt.train.watch.events import Callback, Note, ignore

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # c10/core/impl/alloc_cpu.cpp raises a plain RuntimeError


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

    def halve(self, error: RuntimeError) -> None:
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
    """Whether the GPU is out of memory, or the system gave the CPU's allocator none."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)
