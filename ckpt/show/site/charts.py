"""Curves as drawings: points and marks in the coordinates of the template `chart.html`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from ckpt.ops.plot import Curves
from ckpt.show.look.words import metric, printable

_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 350, 12, 170
_ROWS = 4
_TITLES = {"loss": "Loss", "accuracy": "Accuracy"}


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: the path of SVG, and whether it is that of the hold-out, which is dashed."""

    path: str
    held: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing.

    Attributes:
        name: Of the quantity, for ids: without spaces.
        title: The same as a heading.
        rows: (y, text) of the horizontal lines.
        columns: (x, text) below it.
        lines: The curves.
        star: Where the score on the test images is.
        said: The same in words.
    """

    name: str
    title: str
    rows: Sequence[tuple[float, str]]
    columns: Sequence[tuple[float, str]]
    lines: Sequence[Line]
    star: tuple[float, float] | None
    said: str


def charts(curves: Curves) -> list[Chart]:
    """The curves by epoch, as far as they are finite."""
    return [chart for name in curves.quantities if (chart := _chart(name, curves)) is not None]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where epochs and values are in the drawing."""

    epochs: int
    least: float
    most: float

    @property
    def _half(self) -> float:
        """Half of the span of values, all of which may be infinite."""
        return self.most / 2 - self.least / 2

    @property
    def marks(self) -> list[float]:
        """The values of the horizontal lines."""
        parts = [at / (_ROWS - 1) for at in range(_ROWS)] if self._half else [0.0]
        return [self.least * (1 - part) + self.most * part for part in parts]

    def x(self, epoch: int) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (epoch - 1) / max(1, self.epochs - 1), 1)

    def y(self, value: float) -> float:
        part = (value / 2 - self.least / 2) / self._half if self._half else 0.5
        return round(_BOTTOM - (_BOTTOM - _TOP) * part, 1)

    def path(self, values: Sequence[float]) -> str:
        """A line with a gap where a value is not finite."""
        parts, pen = [], "M"
        for epoch, value in enumerate(values, start=1):
            if isfinite(value):
                parts.append(f"{pen}{self.x(epoch)} {self.y(value)}")
            pen = "L" if isfinite(value) else "M"
        return "".join(parts)


def _chart(name: str, curves: Curves) -> Chart | None:
    series = {each: curves.series.get(each, ()) for each in (name, f"holdout_{name}")}
    test = curves.test.get(name) if curves.epoch is not None else None
    test = test if test is not None and isfinite(test) else None
    finite = [value for values in series.values() for value in values if isfinite(value)]
    if not finite:
        return None
    finite += [] if test is None else [test]
    scale = _Scale(curves.epochs, min(finite), max(finite))
    return Chart(
        name if name in _TITLES else f"curve-{curves.quantities.index(name)}",
        _TITLES.get(name, printable(name)),
        [(scale.y(value), _mark(name, value)) for value in scale.marks],
        [(scale.x(epoch), str(epoch)) for epoch in _epochs(curves.epochs)],
        [Line(scale.path(values), each != name) for each, values in series.items() if values],
        None if test is None else (scale.x(curves.epoch or 1), scale.y(test)),
        ". ".join(_said(name, curves, test)) + ".",
    )


def _mark(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "accuracy" else f"{value:.3g}"


def _epochs(count: int) -> list[int]:
    """The first, the last and some between, of which none is near the last."""
    step = max(1, round(count / 5))
    return [*(at for at in range(1, count, step) if count - at >= step), count]


def _said(name: str, curves: Curves, test: float | None) -> Iterator[str]:
    line = "solid line: training" if name in _TITLES else "solid line"
    words = (name, line), (f"holdout_{name}", "dashed line: hold-out")
    for each, what in words:
        if values := curves.series.get(each, ()):
            first, last = (metric(name, values[at]) for at in (0, -1))
            yield f"{what}, {first} to {last} in {curves.epochs:,} epochs".capitalize()
    if test is not None:
        yield f"Circle: test, {metric(name, test)}, of epoch {curves.epoch}"
