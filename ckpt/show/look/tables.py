"""Tables, and reports made of them, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.show.look import terminal


@dataclass(frozen=True, slots=True)
class Table:
    """A table, whose text may come from files; heads in `right` align their column to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()

    def without_empty_columns(self) -> "Table":
        """The table with the columns that have a text in some row."""
        shown = [at for at in range(len(self.heads)) if any(row[at] for row in self.rows)]
        rows = [[row[at] for at in shown] for row in self.rows]
        return Table([self.heads[at] for at in shown], rows, self.right)

    def lines(self, width: int | None) -> list[str]:
        """Lines for a terminal of this width, indented by two."""
        narrower = None if width is None else width - 2
        text = terminal.table(self.rows, self.heads, right=self.right, width=narrower)
        return [f"  {line}" for line in text.splitlines()]


@dataclass(frozen=True, slots=True)
class Report:
    """An answer, the tables that explain it, and notes."""

    answer: str
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
