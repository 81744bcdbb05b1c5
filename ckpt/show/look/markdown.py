"""Reports as Markdown that fits a comment on a pull request.

Laws: no text of a report acts as markup, whatever it contains; a comment has at most `MOST`
characters, and says how many rows and notes it leaves out.
"""

import re
from collections.abc import Sequence

from ckpt.errors import excerpt
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, printable

# GitHub takes 65,536 characters in a comment; the rest is left for what is put around it.
MOST = 60_000
_FOLDED = 12  # a table of more rows is folded
_LONGEST = 500  # characters of the answer and the verdict


def markdown(report: Report) -> str:
    """The answer, the verdict, tables as GitHub draws them, and notes; long tables are folded."""
    parts = [f"### {_marked(excerpt(report.answer, _LONGEST))}"]
    if report.verdict:
        parts.append(f"**{_marked(excerpt(report.verdict, _LONGEST))}**")
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
    rows, room = [*table.rows], room - 200  # for the fold and the number
    text = _table(table, rows)
    while rows and len(text) > room:
        rows = rows[: min(len(rows) - 1, len(rows) * max(room, 0) // len(text))]
        text = _table(table, rows)
    left = len(table.rows) - len(rows)
    more = f"\n\nand {count(left, 'more row')}" if left else ""
    if not rows:
        return more.strip()
    if len(table.rows) <= _FOLDED:
        return text + more
    summary = f"<summary>{count(len(table.rows), 'row')}</summary>"
    return f"<details>{summary}\n\n{text}{more}\n\n</details>"


def _table(table: Table, rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    cells = [[_marked(cell) for cell in row] for row in rows]
    heads = [_marked(head) for head in table.heads]
    align = ["right" if head in table.right else "left" for head in table.heads]
    return tabulate(cells, heads, tablefmt="pipe", colalign=align, disable_numparse=True)


def _note(note: str) -> str:
    """A remark; a command in it becomes a block of code, in which nothing is markup."""
    text, mark, command = note.partition("  ckpt ")
    return f"{_marked(text)}\n\n    ckpt {command}" if mark else _marked(note)


def _marked(text: str) -> str:
    """Text without active markup (CommonMark, 2.4: any punctuation may be escaped)."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&!])", r"\\\1", printable(text))
