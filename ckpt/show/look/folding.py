"""Fold many similar lines into one: sixty-four layers are one line.

`blocks.0.attn.weight`, `blocks.0.attn.bias`, … `blocks.11.attn.bias` become
`blocks.{0..11}.attn.{weight,bias}`. A row holds one key, or an old and a new key that fold
together. If a new number is not the old number plus a constant, the rows are not folded, since
one line would hide which key becomes which.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.show.look.words import count, printable

Cells = tuple[str, ...]
_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)")  # an index; `01` stays as it is


@dataclass(frozen=True, slots=True)
class Folded:
    """One line that represents `count` rows."""

    cells: Cells
    count: int

    @property
    def text(self) -> str:
        """The cells with arrows between them."""
        return "  ->  ".join(map(printable, self.cells))

    @property
    def note(self) -> str:
        """``   4 keys``; nothing for a single row."""
        return f"   {count(self.count, 'key')}" if self.count > 1 else ""


def fold(rows: Sequence[Cells]) -> list[Folded]:
    """Fold rows of keys, in order of first appearance."""
    groups: defaultdict[Cells, list[Cells]] = defaultdict(list)
    for row in rows:
        groups[tuple(_NUMBER.sub("{}", cell) for cell in row)].append(row)
    lines = [line for group in groups.values() for line in _fold_numbers(group)]
    return _fold_leaves(lines)


def _fold_numbers(rows: list[Cells]) -> list[Folded]:
    """Rows of one template: one line if their numbers form a full grid, else several."""
    numbers = [[int(n) for cell in row for n in _NUMBER.findall(cell)] for row in rows]
    columns = list(zip(*numbers, strict=True))
    leaders = _leaders(columns)
    product = 1
    for index, leader in enumerate(leaders):
        if leader == index:
            product *= len(set(columns[index]))
    if len(rows) == 1:
        return [Folded(row, 1) for row in rows]
    if product != len(set(rows)):
        return _fold_parts(rows, columns, leaders)
    texts = iter([_number_set(column) for column in columns])
    cells = tuple(_NUMBER.sub(lambda _: next(texts), cell) for cell in rows[0])
    return [Folded(cells, len(rows))]


def _fold_parts(
    rows: list[Cells], columns: list[tuple[int, ...]], leaders: list[int]
) -> list[Folded]:
    """Rows that form no full grid: a line for each value of the number with the fewest values."""
    counts = {len(set(columns[index])): index for index in sorted(set(leaders), reverse=True)}
    several = [count for count in counts if count > 1]
    if not several or min(several) == len(rows):
        return [Folded(row, 1) for row in rows]
    column = columns[counts[min(several)]]
    parts: defaultdict[int, list[Cells]] = defaultdict(list)
    for value, row in zip(column, rows, strict=True):
        parts[value].append(row)
    return [line for part in parts.values() for line in _fold_numbers(part)]


def _leaders(columns: list[tuple[int, ...]]) -> list[int]:
    """For each column the first one that it follows at a constant distance."""
    leaders: list[int] = []
    for index, column in enumerate(columns):
        for earlier in range(index + 1):
            if len({a - b for a, b in zip(column, columns[earlier], strict=True)}) == 1:
                leaders.append(earlier)
                break
    return leaders


def _number_set(column: Sequence[int]) -> str:
    found = sorted(set(column))
    if len(found) == 1:
        return str(found[0])
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{{{found[0]}..{found[-1]}}}"
    return f"{{{','.join(map(str, found))}}}"


def _fold_leaves(lines: list[Folded]) -> list[Folded]:
    """Join lines that differ only in a last part that is the same in all their cells."""
    groups: defaultdict[object, list[Folded]] = defaultdict(list)
    for line in lines:
        stems, leaves = zip(*(cell.rpartition(".")[::2] for cell in line.cells), strict=True)
        alone = len(set(leaves)) > 1 or not all(stems)
        groups[line.cells if alone else (stems, line.count)].append(line)
    return [_with_leaves(group) for group in groups.values()]


def _with_leaves(group: list[Folded]) -> Folded:
    leaves = [line.cells[0].rpartition(".")[2] for line in group]
    if len(group) == 1:
        return group[0]
    stems = [cell.rpartition(".")[0] for cell in group[0].cells]
    joined = f"{{{','.join(leaves)}}}"
    return Folded(tuple(f"{stem}.{joined}" for stem in stems), sum(line.count for line in group))
