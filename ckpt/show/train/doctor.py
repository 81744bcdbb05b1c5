"""The view of `ckpt train --doctor`: the ways that were tried, and the verdicts."""

from dataclasses import asdict
from io import BytesIO
from typing import Any

from ckpt.show.look.tables import Table
from ckpt.show.look.words import printable, size
from ckpt.train.tips.diagnosis import TIPS, Diagnosis, Tried

_LEGEND = """\
× first: the ratio to the tip's first row in the same turn, the median of turns.
spread: the same without the lowest and highest quarter of the turns.
img/s: of training steps: × first times the median of the first row.
memory: what the graphs of a step hold for its backward pass, or keep after it."""


def diagnosis_text(found: Diagnosis, *, width: int | None = None) -> str:
    """A line for each way that was tried, and the verdict on each tip.

    Args:
        found: The measurements.
        width: Columns of the terminal, or None; where it is narrow, it leaves out how to choose a
            way.
    """
    heads = ["tip", "tried", "img/s", "× first", "spread", "memory", "to choose it"]
    rows, last = [], ""
    for row in found.rows:
        rows.append(["" if row.tip == last else row.tip, row.name, *_measured(row), row.type])
        last = row.tip
    drawn = Table(heads, rows, right=heads[2:6], spare=heads[6:]).lines(width)
    wide = max(map(len, TIPS))
    words = {True: "yes", False: "no", None: "unclear"}
    verdicts = [
        f"{each.tip:<{wide}}  {words[each.helps]:<7}  {each.why}" for each in found.verdicts
    ]
    where = printable(found.where)
    return "\n".join([where, "", *drawn, "", _LEGEND, "", *map(printable, verdicts)])


def _measured(row: Tried) -> list[str]:
    """Speed, ratio, its spread and memory, as far as they were measured."""
    speed, ratio, low, high = row.images_per_second, row.ratio, row.ratio_low, row.ratio_high
    return [
        "" if speed is None else f"{speed:,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if low is None or high is None else f"{low:.2f}-{high:.2f}",
        "" if row.bytes is None else size(row.bytes),
    ]


def diagnosis_data(found: Diagnosis) -> dict[str, Any]:
    """The same for JSON."""
    return asdict(found)


def diagnosis_picture(found: Diagnosis, form: str) -> bytes:
    """Draw a bar for each way that was timed, one picture a tip.

    Args:
        found: The measurements.
        form: ``png`` or ``svg``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "ckpt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 8), layout="constrained", dpi=150)
        figure.suptitle(printable(found.where), fontsize="small")
        for axes, tip in zip(figure.subplots(len(TIPS), 1), TIPS, strict=True):
            rows = [row for row in found.rows if row.tip == tip][::-1]
            is_speed = rows[0].ratio is not None
            values = [(row.ratio if is_speed else (row.bytes or 0) / 1e6) or 0 for row in rows]
            bars = axes.barh([row.name for row in rows], values, color="#4477aa")
            axes.bar_label(bars, fmt="%.2f" if is_speed else "%.3g", padding=3)
            axes.set_title(tip, loc="left", fontsize="medium")
            axes.set_xlabel("images/s, × the first" if is_speed else "MB", fontsize="small")
            axes.margins(x=0.1)
            if is_speed:
                axes.axvline(1, color="black", linewidth=0.8)
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()
