"""Curves: what was measured in each epoch of the training that a version comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ckpt.errors import UsageError
from ckpt.ops.log import log
from ckpt.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one run.

    Attributes:
        version: The version that was asked for.
        trained: The version that the run made; the same, or one that it was renamed from.
        series: A number for each epoch, by quantity: ``loss`` in nats and ``accuracy`` in
            [0, 1], both over the training images as they went by, and more.
    """

    version: str
    trained: str
    series: Mapping[str, Sequence[float]]

    @property
    def epochs(self) -> int:
        """How many."""
        return len(self.series["loss"])


def plot(ref: str, *, registry: Registry | None = None) -> Curves:
    """The curves of a version, or of the one that it was renamed from.

    Raises:
        RefError: There is no such version.
        UsageError: It was not trained by `ckpt train`.
    """
    steps = log(ref, registry=registry)
    for step in steps:
        series = _series(step.record.get("curves"))
        if series is not None:
            return Curves(steps[0].version.ref, step.version.ref, series)
    raise UsageError(
        f"{steps[0].version.ref} has no curves: it was not trained here",
        hint="ckpt train --register  makes versions that have",
    )


def _series(recorded: Any) -> dict[str, list[float]] | None:
    """What a record has, if that is a list of numbers for each quantity."""
    if not isinstance(recorded, dict) or not {"loss", "accuracy"} <= recorded.keys():
        return None
    lists = list(recorded.values())
    if not all(isinstance(each, list) and len(each) == len(lists[0]) > 0 for each in lists):
        return None
    numbers = (number for each in lists for number in each)
    if not all(type(number) in (int, float) and isfinite(number) for number in numbers):
        return None
    return {str(name): each for name, each in recorded.items()}
