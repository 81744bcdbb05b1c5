"""Arithmetic of an epoch: which samples make which micro-batch of which window.

Law: the micro-batches of an epoch, joined, are its samples in order, each once; every
window but the last holds ``batch_size * accumulate`` of them. Pure, without torch.
"""

import hashlib
from collections.abc import Iterator

ORDER_RULE = "torch.randperm, seeded with the first 8 bytes of sha256('order SEED EPOCH') >> 1"


def windows(samples: int, *, batch_size: int, accumulate: int) -> Iterator[tuple[slice, ...]]:
    """The accumulation windows of an epoch, each as the slices of its micro-batches.

    Args:
        samples: Of the epoch, at least 1.
        batch_size: Samples of a micro-batch; the last one of the epoch may have fewer.
        accumulate: Micro-batches of a window; the last window may have fewer.
    """
    window = batch_size * accumulate
    for start in range(0, samples, window):
        end = min(start + window, samples)
        yield tuple(slice(at, min(at + batch_size, end)) for at in range(start, end, batch_size))


def epoch_seed(purpose: str, seed: int, epoch: int) -> int:
    """A seed that is a pure function of its arguments, in [0, 2^63).

    Args:
        purpose: ``order`` or ``dropout``: the streams must not be the same.
        seed: The recipe's.
        epoch: From 1.
    """
    digest = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes a signed 64-bit seed
