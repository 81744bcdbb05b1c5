"""How side files differ: a table, and the lines of small texts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ckpt.ops.diff.side_files import FileChange
from ckpt.show.look.tables import Table
from ckpt.show.look.words import count, printable, size

_MOST_LINES = 40  # of one file; --json has all of them


def files_table(changes: Sequence[FileChange], before: str, after: str) -> Table:
    """A row for each file."""
    rows = [[each.name, _size(each.before), _size(each.after)] for each in changes]
    return Table(["side file", before, after], rows)


def files_lines(changes: Sequence[FileChange]) -> Iterator[str]:
    """The differences of small texts, unified."""
    for change in changes:
        if change.lines:
            yield ""
            yield f"  {printable(change.name)}"
            yield from (f"  {printable(line)}" for line in change.lines[:_MOST_LINES])
            if (more := len(change.lines) - _MOST_LINES) > 0:
                yield f"  … {count(more, 'more line')}; --json has all"


def files_data(changes: Sequence[FileChange]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [asdict(change) for change in changes]


def _size(nbytes: int | None) -> str:
    return "" if nbytes is None else size(nbytes)
