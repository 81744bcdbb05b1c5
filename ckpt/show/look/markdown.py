"""Reports as Markdown that fits a comment on a pull request.

Laws: no text of a report acts as markup, whatever it contains; a comment has at most `MOST`
characters, and says how many rows and notes it leaves out; long cells end in ``…``.
"""

import re
from collections.abc import Sequence

from ckpt.errors import excerpt
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, printable

# GitHub takes 65,536 characters in a comment; the rest is left for what is put around it.
MOST = 60_000
_FOLDED = 12  # a table of more rows is folded
_FOLD = 200  # characters for a fold, and the number of rows that are left out
_LONGEST = 500  # characters of the answer and the verdict
_WIDEST = 300  # characters of a cell


def markdown(report: Report) -> str:
    """The answer, the verdict, tables as GitHub draws them, and notes; long tables are folded."""
    parts = [f"### {marked(excerpt(report.answer, _LONGEST))}"]
    if report.verdict:
        parts.append(f"**{marked(excerpt(report.verdict, _LONGEST))}**")
    notes = _fitting([_note(note.strip()) for note in report.notes if note.strip()], MOST // 2)
    room = MOST - len("\n\n".join([*parts, *notes]))
    for table in report.tables:
        parts.append(_fitted(table, room))
        room -= len(parts[-1]) + 2
    return "\n\n".join([*filter(None, parts), *notes])


def _fitting(notes: list[str], room: int) -> list[str]:
    """The first notes that fit, and the number of the others."""
    kept: list[str] = []
    for note in notes:
        room -= len(note) + 2
        if room < 0:
            return [*kept, f"and {count(len(notes) - len(kept), 'more note')}"]
        kept.append(note)
    return kept


def _fitted(table: Table, room: int) -> str:
    """A table without the rows for which there is no room, and their number."""
    most = table.rows[: MOST // 5]  # a row takes more
    columns = zip(*_cells(most), _heads(table), strict=True)
    widths = [max(map(len, column)) for column in columns]
    line = sum(widths) + 3 * len(widths) + 2
    rows = table.rows[: max(0, (room - _FOLD) // line - 2)]  # without the head and the rule
    left = len(table.rows) - len(rows)
    more = f"\n\nand {count(left, 'more row')}" if left else ""
    if not rows:
        return more.strip()
    if len(table.rows) <= _FOLDED:
        return markdown_table(table, rows) + more
    summary = f"<summary>{count(len(table.rows), 'row')}</summary>"
    return f"<details>{summary}\n\n{markdown_table(table, rows)}{more}\n\n</details>"


def markdown_table(table: Table, rows: Sequence[Sequence[str]]) -> str:
    """These rows of a table, as GitHub draws it."""
    from tabulate import tabulate

    align = ["right" if head in table.right else "left" for head in table.heads]
    return tabulate(
        _cells(rows), _heads(table), tablefmt="pipe", colalign=align, disable_numparse=True
    )


def _cells(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[marked(excerpt(cell, _WIDEST)) for cell in row] for row in rows]


def _heads(table: Table) -> list[str]:
    return [marked(excerpt(head, _WIDEST)) for head in table.heads]


def _note(note: str) -> str:
    """A remark; a command in it becomes a block of code, in which nothing is markup."""
    text, mark, command = note.partition("  ckpt ")
    return f"{marked(text)}\n\n    ckpt {command}" if mark else marked(note)


def marked(text: str) -> str:
    """Text without active markup (CommonMark, 2.4: any punctuation may be escaped)."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&!])", r"\\\1", printable(text))
