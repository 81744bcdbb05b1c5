"""Curves as text, one line per quantity, and as a picture."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from math import isfinite
from typing import Any

from ckpt.io.strict_json import plain
from ckpt.ops.plot import Curves
from ckpt.show.look.words import count, metric, printable

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60  # columns; more epochs share one
_QUANTITIES = {"loss": "mean loss, nats", "accuracy": "accuracy, %"}


def curves_text(several: Sequence[Curves]) -> str:
    """A line for the loss and one for the accuracy of each run, on one scale for all."""
    return "\n\n".join("\n".join([_title(curves), *_lines(curves, several)]) for curves in several)


def curves_data(several: Sequence[Curves]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "curves": [
            {
                "version": curves.version,
                "trained": curves.trained,
                "epochs": curves.epochs,
                "series": plain(curves.series),
            }
            for curves in several
        ]
    }


def picture(several: Sequence[Curves], form: str) -> bytes:
    """Draw loss and accuracy by epoch, all runs in the same axes.

    Args:
        several: The runs, at least one.
        form: ``png`` or ``svg``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # Text instead of outlines, no date and fixed ids: equal curves give equal bytes.
    with mpl.rc_context({"svg.hashsalt": "ckpt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=150)
        for axes, (name, title) in zip(figure.subplots(1, 2), _QUANTITIES.items(), strict=True):
            for curves in several:
                epochs = range(1, curves.epochs + 1)
                axes.plot(epochs, _values(curves, name), marker=".", label=curves.version)
            axes.set_xlabel("epoch")
            axes.set_ylabel(title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True, alpha=0.3)
        axes.legend()
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def _title(curves: Curves) -> str:
    of = "" if curves.trained == curves.version else f", trained as {printable(curves.trained)}"
    return f"{printable(curves.version)}  {count(curves.epochs, 'epoch')}{of}"


def _lines(curves: Curves, several: Sequence[Curves]) -> list[str]:
    lines = []
    for name in _QUANTITIES:
        of_all = [value for one in several for value in _values(one, name) if isfinite(value)]
        values = _values(curves, name)
        bars = _bars(values, min(of_all, default=0), max(of_all, default=0))
        first, last = (metric(name, curves.series[name][at]) for at in (0, -1))
        lines.append(f"  {name:<8}  {first:>8}  {bars}  {last}")
    return lines


def _values(curves: Curves, name: str) -> list[float]:
    scale = 100 if name == "accuracy" else 1
    return [value * scale for value in curves.series[name]]


def _bars(values: Sequence[float], least: float, most: float) -> str:
    """One bar per epoch, or per few of them if there are many."""
    columns = min(len(values), _WIDEST)
    ends = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(ends)]
    span = (most - least) or 1
    top = len(_BARS) - 1
    return "".join(
        _BARS[max(0, min(top, round((mean - least) / span * top)))] if isfinite(mean) else " "
        for mean in means
    )
