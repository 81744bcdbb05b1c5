"""Tables, and reports made of them, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.show.look import terminal


@dataclass(frozen=True, slots=True)
class Table:
    """A table, whose text may come from files.

    Attributes:
        heads: Of its columns.
        rows: Their cells.
        right: The heads of the columns that are aligned to the right.
        spare: The heads of columns that a narrow terminal can do without, the first one first;
            they go before any cell is folded.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    spare: Sequence[str] = ()

    def without_empty_columns(self) -> "Table":
        """The table with the columns that have a text in some row."""
        return self._only([at for at, _ in enumerate(self.heads) if any(r[at] for r in self.rows)])

    def lines(self, width: int | None) -> list[str]:
        """Lines for a terminal of this width, indented by two."""
        lines = self._lines(None)
        if width is None or max(map(len, lines)) <= width:
            return lines
        if less := [head for head in self.spare if head in self.heads]:
            kept = [at for at, head in enumerate(self.heads) if head != less[0]]
            return self._only(kept).lines(width)
        return self._lines(width - 2)

    def _lines(self, width: int | None) -> list[str]:
        text = terminal.table(self.rows, self.heads, right=self.right, width=width)
        return [f"  {line}" for line in text.splitlines()]

    def _only(self, columns: Sequence[int]) -> "Table":
        rows = [[row[at] for at in columns] for row in self.rows]
        return Table([self.heads[at] for at in columns], rows, self.right, self.spare)


@dataclass(frozen=True, slots=True)
class Group:
    """What happened to the keys of one module.

    Attributes:
        name: The module; empty for the root.
        rows: What happened, to which key, and how.
    """

    name: str
    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Report:
    """An answer, the tables that explain it, and notes.

    Attributes:
        answer: The heading.
        tables: The tables.
        notes: Remarks, and commands after two spaces.
        verdict: One line, if the answer does not say it: ``differs: 4 renamed, 8 same``.
        mood: ``good``, ``notable`` or ``bad``, where there is colour.
        groups: Every change, by module.
    """

    answer: str
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    verdict: str = ""
    mood: str = ""
    groups: Sequence[Group] = ()
