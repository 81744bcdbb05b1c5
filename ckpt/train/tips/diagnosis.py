"""What the five tips bring to one model and dataset: the result of `doctor`.

Every figure is measured in the same run; a ratio compares rows that were measured in turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ckpt.printed import Printed

TIPS = ("workers", "largest batch", "16 bits", "accumulation", "kept graphs")


@dataclass(frozen=True, slots=True)
class Tried:
    """One way of doing it, measured.

    Attributes:
        tip: One of `TIPS`.
        name: The way, in a few words.
        type: The options of `ckpt train`, or the code, that choose it.
        images_per_second: Of training steps; None if speed was not measured.
        ratio: To that of the tip's first row; the median of the ratios of all turns.
        bytes: Held for the backward pass of a step, or kept after a step; None if not measured.
    """

    tip: str
    name: str
    type: str
    images_per_second: float | None = None
    ratio: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tip helps here, and why."""

    tip: str
    helps: bool
    why: str


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis(Printed):
    """The result of `doctor`.

    Attributes:
        where: Model, dataset, shape of an image, device: what all figures are about.
        rows: By tip, in the order of `TIPS`.
        verdicts: One a tip.
    """

    VIEW: ClassVar = "ckpt.show.train:diagnosis_text"

    where: str
    rows: Sequence[Tried]
    verdicts: Sequence[Verdict]


def fastest(rows: Sequence[Tried]) -> Tried:
    """The row with the most images a second."""
    return max(rows, key=lambda row: row.ratio or 0)
