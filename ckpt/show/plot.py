"""Curves as text, a line for each quantity, and as a picture."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

from ckpt.ops.plot import Curves
from ckpt.show.look.words import count, metric, printable

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60  # columns; more epochs share one
_WHAT = {"loss": "mean loss, nats", "accuracy": "accuracy, %"}


def curves_text(several: Sequence[Curves]) -> str:
    """A line for the loss and one for the accuracy of each run, all on one scale."""
    return "\n\n".join("\n".join([_title(each), *_lines(each, several)]) for each in several)


def curves_data(several: Sequence[Curves]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "curves": [
            {
                "version": each.version,
                "trained": each.trained,
                "epochs": each.epochs,
                "series": {name: list(values) for name, values in each.series.items()},
            }
            for each in several
        ]
    }


def picture(several: Sequence[Curves], form: str) -> bytes:
    """Loss and accuracy by epoch, the runs over each other.

    Args:
        several: The runs, at least one.
        form: ``png`` or ``svg``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # Names as text, no date and fixed ids: the same curves give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "ckpt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=150)
        for axes, (name, what) in zip(figure.subplots(1, 2), _WHAT.items(), strict=True):
            for each in several:
                epochs = range(1, each.epochs + 1)
                axes.plot(epochs, _values(each, name), marker=".", label=each.version)
            axes.set_xlabel("epoch")
            axes.set_ylabel(what)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True, alpha=0.3)
        axes.legend()
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def _title(each: Curves) -> str:
    of = "" if each.trained == each.version else f", trained as {printable(each.trained)}"
    return f"{printable(each.version)}  {count(each.epochs, 'epoch')}{of}"


def _lines(each: Curves, several: Sequence[Curves]) -> list[str]:
    lines = []
    for name in _WHAT:
        of_all = [value for one in several for value in _values(one, name)]
        values = _values(each, name)
        bars = _bars(values, min(of_all), max(of_all))
        first, last = (metric(name, each.series[name][at]) for at in (0, -1))
        lines.append(f"  {name:<8}  {first:>8}  {bars}  {last}")
    return lines


def _values(each: Curves, name: str) -> list[float]:
    scale = 100 if name == "accuracy" else 1
    return [value * scale for value in each.series[name]]


def _bars(values: Sequence[float], least: float, most: float) -> str:
    """A bar for each epoch, or for a few of them where they are many."""
    columns = min(len(values), _WIDEST)
    ends = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(ends)]
    span = (most - least) or 1
    top = len(_BARS) - 1
    return "".join(_BARS[max(0, min(top, round((mean - least) / span * top)))] for mean in means)
