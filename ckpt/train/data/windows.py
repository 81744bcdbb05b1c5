"""The arithmetic of an epoch: which samples are in which window, process and micro-batch.

Laws: the windows of an epoch, joined, are its samples in order, each once, and every window
but the last has the size asked for. The shares of a window, joined in the order of the
processes, are the window; the micro-batches of a share, joined, are the share. Pure, without
torch.
"""

import hashlib
from collections.abc import Iterator

ORDER_RULE = "torch.randperm, seeded with the first 8 bytes of sha256('order SEED EPOCH') >> 1"


def windows(samples: int, size: int) -> Iterator[range]:
    """The accumulation windows of an epoch: positions in its order.

    Args:
        samples: Of the epoch, at least 1.
        size: The effective batch; the last window may have fewer.
    """
    return (range(at, min(at + size, samples)) for at in range(0, samples, size))


def share(window: range, *, rank: int, count: int) -> range:
    """The part of a window for process `rank` of `count`; the first ones may have one more."""
    least, longer = divmod(len(window), count)
    start = window.start + rank * least + min(rank, longer)
    return range(start, start + least + (rank < longer))


def shares(
    samples: int, size: int, *, rank: int = 0, count: int = 1
) -> Iterator[tuple[range, range]]:
    """Each window of an epoch, and the share of process `rank` of `count`."""
    return ((window, share(window, rank=rank, count=count)) for window in windows(samples, size))


def cut(samples: int, size: int) -> Iterator[slice]:
    """The micro-batches of a share, as slices of it; the last one may have fewer."""
    return (slice(at, min(at + size, samples)) for at in range(0, samples, size))


def epoch_seed(purpose: str, seed: int, epoch: int) -> int:
    """A seed that is a pure function of its arguments, in [0, 2^63).

    Args:
        purpose: ``order``, ``dropout``, ``hold-out`` or ``augmentation``: the streams must not be
            the same.
        seed: The recipe's.
        epoch: From 1; 0 for a draw that all epochs share.
    """
    digest = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes a signed 64-bit seed
