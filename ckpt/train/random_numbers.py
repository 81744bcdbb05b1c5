"""The global random numbers of a process: torch's, Python's and numpy's.

A model's own code may draw from any of them, so all are seeded, saved and restored together.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed all generators, those of GPUs too.

    Args:
        seed: From 0 to 2^63 - 1; numpy takes its last 32 bits.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)


def generators(device: torch.device) -> dict[str, Any]:
    """Their states, as values that ``torch.load(weights_only=True)`` reads.

    Other GPUs than `device` are not touched, nor opened.
    """
    name, key, *rest = np.random.get_state(legacy=True)
    return {
        "cpu": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        "python": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
    }


def restore(states: Mapping[str, Any], device: torch.device) -> None:
    """Bring back what `generators` gave, perhaps for another device, whose own goes on then."""
    torch.set_rng_state(states["cpu"])
    for state in states["cuda"] if device.type == "cuda" else ():
        torch.cuda.set_rng_state(state, device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


@contextmanager
def restored(device: torch.device) -> Iterator[None]:
    """Restore the generators at the end of the block."""
    before = generators(device)
    try:
        yield
    finally:
        restore(before, device)
