"""Curves: the figures of every epoch of a training, from a version's record or a metrics file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import fspath
from pathlib import Path
from typing import Any, ClassVar

from ckpt.errors import RefError, UsageError
from ckpt.io.files import exists
from ckpt.ops.log import log
from ckpt.printed import Printed
from ckpt.refs import is_url, parse_file_ref
from ckpt.registry.registry import InRegistry
from ckpt.registry.version import Version
from ckpt.train.watch.metrics_file import SUFFIX, read_curves

ON_DEMAND = ("lr", "gradient_norm")  # recorded by `ckpt train`, and drawn if asked for
_UNDRAWN = (*ON_DEMAND, "seconds", "skipped_steps")
_NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no numbers for them
_HINT = (
    "to make versions with curves:  ckpt train --register;\n"
    "ckpt plot FILE.jsonl  draws those that ckpt train --metrics FILE.jsonl wrote;\n"
    'ckpt.register(net, curves={"loss": [...]})  keeps those of a loop of your own'
)


@dataclass(frozen=True, slots=True, repr=False)
class Curves(Printed):
    """The curves of `version`, from the run that made `trained`.

    Both are the same version or metrics file, or `version` was renamed from `trained`.

    Attributes:
        series: A number for each epoch, not always a finite one, by quantity: ``loss`` in nats and
            ``accuracy`` in [0, 1], both over the training images during the epoch; of the hold-out
            ``holdout_loss`` and ``holdout_accuracy``; ``lr``, ``gradient_norm`` and more. Those of
            `ckpt.register` have names of their own.
        epoch: The epoch whose weights were kept and tested, from 1; None if unknown.
        test: Their ``loss`` and ``accuracy`` on the test images, as far as known.
    """

    VIEW: ClassVar = "ckpt.show.plot:one_text"

    version: str
    trained: str
    series: Mapping[str, Sequence[float]]
    epoch: int | None = None
    test: Mapping[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Their number."""
        return len(next(iter(self.series.values())))

    @property
    def quantities(self) -> list[str]:
        """What is drawn: loss and accuracy, then others; ``holdout_X`` belongs to ``X``."""
        first = [name for name in ("loss", "accuracy") if name in self.series]
        held = [f"holdout_{name}" for name in self.series]
        others = [it for it in self.series if it not in (*first, *held, *_UNDRAWN)]
        return first + others or list(self.series)


def plot(ref: Path | str, *, registry: InRegistry | None = None) -> Curves:
    """The curves of a version, or of the one that it was renamed from, or of a metrics file.

    Args:
        ref: The version, or a ``.jsonl`` file of `ckpt train --metrics`.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: No such version.
        UsageError: It has no curves.
    """
    text = fspath(ref)
    if text.lower().endswith(SUFFIX):
        if is_url(text):
            raise UsageError(
                f"{text}: a URL, expected a metrics file on this machine", hint="download it first"
            )
        return _of_file(Path(text))
    try:
        steps = log(text, registry=registry)
    except RefError as error:
        if text and exists(parse_file_ref(text).path):
            raise RefError(f"{text}: weights in a file have no curves", hint=_HINT) from error
        raise
    for step in steps:
        if own := own_curves(step.version, step.record):
            return replace(own, version=steps[0].version.ref)
    raise UsageError(f"{steps[0].version.ref} has no curves", hint=_HINT)


def _of_file(path: Path) -> Curves:
    recorded, finished = read_curves(path)
    series = _series(recorded)
    if series is None:
        raise UsageError(f"{path}: has values that are not numbers")
    known = {name: finished.get(f"test_{name}") for name in ("loss", "accuracy")}
    test = {name: _number(value) for name, value in known.items() if _is_number(value)}
    epoch = finished.get("epoch")
    tested = type(epoch) is int and 1 <= epoch <= len(next(iter(series.values())))
    return Curves(str(path), str(path), series, *((epoch, test) if tested else ()))


def own_curves(version: Version, record: Mapping[str, Any]) -> Curves | None:
    """The curves of the training that made this version; None if its record has none."""
    series = _series(record.get("curves"))
    if series is None:
        return None
    epoch, test = _tested(record, series)
    return Curves(version.ref, version.ref, series, epoch, test)


def _series(recorded: Any) -> dict[str, list[float]] | None:
    """The recorded curves, if they are lists of numbers of one length."""
    if not isinstance(recorded, dict) or not recorded:
        return None
    lists = list(recorded.values())
    if not all(isinstance(found, list) and len(found) == len(lists[0]) > 0 for found in lists):
        return None
    numbers = (number for found in lists for number in found)
    if not all(map(_is_number, numbers)):
        return None
    return {str(name): [_number(each) for each in found] for name, found in recorded.items()}


def _tested(
    record: Mapping[str, Any], series: Mapping[str, Sequence[float]]
) -> tuple[int | None, dict[str, float]]:
    """The epoch that was tested and its score: what `ckpt train` records as metrics.

    Without a hold-out it is the last one; early versions recorded no other. Nobody knows what the
    metrics of a version with curves of another loop were measured on.
    """
    if "training" not in record:
        return None, {}
    last = len(next(iter(series.values())))
    epoch = record["training"].get("epoch")
    if epoch is None and "holdout_loss" not in series:
        epoch = last
    if type(epoch) is not int or not 1 <= epoch <= last:
        return None, {}
    metrics = record.get("metrics", {})
    return epoch, {name: metrics[name] for name in ("loss", "accuracy") if name in metrics}


def _is_number(recorded: Any) -> bool:
    return type(recorded) in (int, float) or recorded in _NOT_FINITE


def _number(recorded: Any) -> float:
    return float(recorded) if isinstance(recorded, str) else recorded
