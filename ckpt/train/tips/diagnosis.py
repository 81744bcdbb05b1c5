"""What the five tips bring to one model and dataset: the result of `doctor`.

Every figure is measured in the same run; a ratio compares rows that were measured in turns.
Law: a speed decides a verdict only if the turns agree on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from ckpt.printed import Printed

TIPS = ("workers", "largest batch", "16 bits", "accumulation", "kept graphs")


@dataclass(frozen=True, slots=True)
class Spread:
    """A ratio in several turns: the median, and the least and most but for the outermost ones."""

    low: float
    middle: float
    high: float

    def agrees(self, least: float) -> bool:
        """Whether the turns agree on being at least `least`, or differ by a smaller factor."""
        return not self.low < least <= self.high or self.high < self.low * least

    def times(self, least: float) -> str:
        """``2.85 ×``, or ``0.72 to 3.10 ×`` where turns differ by a factor of `least` or more."""
        if self.high < self.low * least:
            return f"{self.middle:.2f} ×"
        return f"{self.low:.2f} to {self.high:.2f} ×"


def spread(ratios: Sequence[float]) -> Spread:
    """The spread of the ratios of all turns; a quarter of them is left out at each end."""
    ordered, cut = sorted(ratios), len(ratios) // 4
    return Spread(ordered[cut], median(ordered), ordered[-1 - cut])


@dataclass(frozen=True, slots=True)
class Tried:
    """One way of doing it, measured.

    Attributes:
        tip: One of `TIPS`.
        name: The way, in a few words.
        type: The options of `ckpt train`, or the code, that choose it.
        images_per_second: Of training steps: `ratio` times the median of the tip's first row; None
            if speed was not measured.
        ratio: To the tip's first row in the same turn: the median of all turns.
        bytes: Held for the backward pass of a step, or kept after a step; None if not measured.
        ratio_low: The least ratio, but for the lowest quarter of the turns.
        ratio_high: The most, but for the highest.
    """

    tip: str
    name: str
    type: str
    images_per_second: float | None = None
    ratio: float | None = None
    bytes: int | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tip helps here, None if the turns disagree, and why."""

    tip: str
    helps: bool | None
    why: str


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis(Printed):
    """The result of `doctor`.

    Attributes:
        where: Model, dataset, shape of an image, device: what all figures are about.
        rows: By tip, in the order of `TIPS`.
        verdicts: One a tip.
    """

    VIEW: ClassVar = "ckpt.show.train.doctor:diagnosis_text"

    where: str
    rows: Sequence[Tried]
    verdicts: Sequence[Verdict]


def fastest(rows: Sequence[Tried]) -> Tried:
    """The row with the most images a second."""
    return max(rows, key=lambda row: row.ratio or 0)
