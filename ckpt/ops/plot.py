"""Curves: the figures of every epoch of the training that made a version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ckpt.errors import UsageError
from ckpt.ops.log import log
from ckpt.registry.registry import InRegistry
from ckpt.registry.version import Version

_NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no numbers for them


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of `version`, from the run that made `trained`.

    Both are the same version, or `version` was renamed from `trained`.

    Attributes:
        series: A number for each epoch, not always a finite one, by quantity: ``loss`` in nats and
            ``accuracy`` in [0, 1], both over the training images during the epoch; of the hold-out
            ``holdout_loss`` and ``holdout_accuracy``; ``lr``, ``gradient_norm`` and more.
        epoch: The epoch whose weights were kept and tested, from 1; None if unknown.
        test: Their ``loss`` and ``accuracy`` on the test images, as far as known.
    """

    version: str
    trained: str
    series: Mapping[str, Sequence[float]]
    epoch: int | None = None
    test: Mapping[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Their number."""
        return len(self.series["loss"])


def plot(ref: str, *, registry: InRegistry | None = None) -> Curves:
    """The curves of a version, or of the one that it was renamed from.

    Raises:
        RefError: No such version.
        UsageError: It was not trained by `ckpt train`.
    """
    steps = log(ref, registry=registry)
    for step in steps:
        if own := own_curves(step.version, step.record):
            return replace(own, version=steps[0].version.ref)
    raise UsageError(
        f"{steps[0].version.ref} has no curves: it was not made by ckpt train",
        hint="to make a version with curves:  ckpt train --register",
    )


def own_curves(version: Version, record: Mapping[str, Any]) -> Curves | None:
    """The curves of the training that made this version; None if its record has none."""
    series = _series(record.get("curves"))
    if series is None:
        return None
    epoch, test = _tested(record, series)
    return Curves(version.ref, version.ref, series, epoch, test)


def _series(recorded: Any) -> dict[str, list[float]] | None:
    """The recorded curves, if they are lists of numbers of one length."""
    if not isinstance(recorded, dict) or not {"loss", "accuracy"} <= recorded.keys():
        return None
    lists = list(recorded.values())
    if not all(isinstance(found, list) and len(found) == len(lists[0]) > 0 for found in lists):
        return None
    numbers = (number for found in lists for number in found)
    if not all(type(number) in (int, float) or number in _NOT_FINITE for number in numbers):
        return None
    return {str(name): [_number(each) for each in found] for name, found in recorded.items()}


def _tested(
    record: Mapping[str, Any], series: Mapping[str, Sequence[float]]
) -> tuple[int | None, dict[str, float]]:
    """The epoch that was tested and its score: what `ckpt train` records as metrics.

    Without a hold-out it is the last one; early versions recorded no other.
    """
    last = len(series["loss"])
    epoch = record.get("training", {}).get("epoch")
    if epoch is None and "holdout_loss" not in series:
        epoch = last
    if type(epoch) is not int or not 1 <= epoch <= last:
        return None, {}
    metrics = record.get("metrics", {})
    return epoch, {name: metrics[name] for name in ("loss", "accuracy") if name in metrics}


def _number(recorded: Any) -> float:
    return float(recorded) if isinstance(recorded, str) else recorded
