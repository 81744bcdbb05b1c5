"""Tables, and reports made of them, before it is decided how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.show.look import terminal


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are `printable` already.

    Attributes:
        heads: One a column.
        rows: A cell for each head.
        right: The heads whose columns are aligned to the right.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()

    def lines(self, width: int | None) -> list[str]:
        """For a terminal so wide, indented by two."""
        narrower = None if width is None else width - 2
        text = terminal.table(self.rows, self.heads, right=self.right, width=narrower)
        return [f"  {line}" for line in text.splitlines()]


@dataclass(frozen=True, slots=True)
class Report:
    """An answer, what it rests on, and what is to be said besides."""

    answer: str
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
