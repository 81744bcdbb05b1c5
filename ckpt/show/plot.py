"""Curves as text, one line per quantity, and as a picture."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from math import isfinite
from typing import Any

from ckpt.io.documents.strict_json import plain
from ckpt.ops.plot import Curves
from ckpt.show.look.words import count, metric, metrics, printable

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60  # columns; more epochs share one
_WORDS = {"lr": "learning rate", "gradient_norm": "gradient norm"}  # on demand


def one_text(curves: Curves) -> str:
    """The curves of one run."""
    return curves_text([curves])


def curves_text(several: Sequence[Curves], *, also: Sequence[str] = ()) -> str:
    """A line for each curve of each run, on one scale for all, and the score on the test images.

    Args:
        several: The runs, at least one.
        also: More curves: ``lr``, ``gradient_norm``.
    """
    return "\n\n".join(
        "\n".join([_title(curves), *_lines(curves, several, also)]) for curves in several
    )


def curves_data(several: Sequence[Curves]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "curves": [
            {
                "version": curves.version,
                "trained": curves.trained,
                "epochs": curves.epochs,
                "series": plain(curves.series),
                "epoch": curves.epoch,
                "test": plain(curves.test),
            }
            for curves in several
        ]
    }


def picture(several: Sequence[Curves], form: str, *, also: Sequence[str] = ()) -> bytes:
    """Draw curves by epoch, all runs in the same axes.

    Training is a line, the hold-out a dashed one, and the score on the test images a star.

    Args:
        several: The runs, at least one.
        form: ``png`` or ``svg``.
        also: More curves: ``lr``, ``gradient_norm``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [*dict.fromkeys(name for curves in several for name in curves.quantities), *also]
    # Text instead of outlines, no date and fixed ids: equal curves give equal bytes.
    with mpl.rc_context({"svg.hashsalt": "ckpt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.5 * len(names), 3.6), layout="constrained", dpi=150)
        labelled: dict[str, Any] = {}
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw(axes, name, several)
            handles, labels = axes.get_legend_handles_labels()
            labelled |= dict(zip(labels, handles, strict=True))
        axes.legend(labelled.values(), labelled)
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def _draw(axes: Any, name: str, several: Sequence[Curves]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for curves in several:
        if name not in curves.series:
            continue
        epochs = range(1, curves.epochs + 1)
        label = _plain(curves.version)
        (line,) = axes.plot(epochs, _values(curves, name), marker=".", label=label)
        if held_out := _values(curves, f"holdout_{name}"):
            axes.plot(epochs, held_out, "--", color=line.get_color(), label=f"{label}, hold-out")
        if curves.epoch is not None and name in curves.test:
            score = curves.test[name]
            axes.plot(
                [curves.epoch], [score], "*", color=line.get_color(), markersize=10,
                label=f"{label}, test",
            )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel(_plain(_WORDS.get(name, name)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.grid(visible=True, alpha=0.3)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return printable(text).replace("$", r"\$")


def _title(curves: Curves) -> str:
    of = "" if curves.trained == curves.version else f", trained as {printable(curves.trained)}"
    return f"{printable(curves.version)}  {count(curves.epochs, 'epoch')}{of}"


def _lines(curves: Curves, several: Sequence[Curves], also: Sequence[str]) -> list[str]:
    rows = []
    for name in (*curves.quantities, *also):
        together = [name, f"holdout_{name}"]
        of_all = [
            value for one in several for each in together for value in _values(one, each)
            if isfinite(value)
        ]  # fmt: skip
        for each in together:
            if values := _values(curves, each):
                bars = _bars(values, min(of_all, default=0), max(of_all, default=0))
                first, last = (metric(name, values[at]) for at in (0, -1))
                words = f"hold-out {name}" if each != name else _WORDS.get(name, name)
                words = printable(words)
                rows.append((words, first, bars, last))
        if name not in curves.series:
            rows.append((_WORDS.get(name, name), "", "not recorded", ""))
    width = max(len(words) for words, *_ in rows)
    lines = [f"  {words:<{width}}  {first:>8}  {bars}  {last}" for words, first, bars, last in rows]
    return [*map(str.rstrip, lines), *_test_line(curves, width)]


def _test_line(curves: Curves, width: int) -> list[str]:
    if not curves.test:
        return []
    return [f"  {'test':<{width}}  {metrics(curves.test)}, of epoch {curves.epoch}"]


def _values(curves: Curves, name: str) -> Sequence[float]:
    return curves.series.get(name, ())


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
