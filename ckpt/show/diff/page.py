"""The difference as one self-contained page."""

from dataclasses import replace

from ckpt import __version__
from ckpt.show.look.tables import Report
from ckpt.show.pages import page_alone

_MOST = 2000  # changed keys, one by one; the tables above them have all, folded


def diff_page(report: Report) -> str:
    """The verdict, what changed, and every changed key by module, with a filter."""
    shown, left = shortened(report)
    return page_alone(
        "diff.html",
        title=report.answer,
        crumbs=[("ckpt diff", "")],
        made_by=__version__,
        report=shown,
        left=left,
    )


def shortened(report: Report) -> tuple[Report, int]:
    """A report with as many changed keys as a page lists, and the number of the others."""
    groups, room = [], _MOST
    for group in report.groups:
        if rows := group.rows[:room]:
            groups.append(replace(group, rows=rows))
            room -= len(rows)
    total = sum(len(group.rows) for group in report.groups)
    return replace(report, groups=groups), total - (_MOST - room)
