"""The best pairing of two lists by a table of scores, and how much better it is than the next.

Law: `assign` gives every row one column at most, and no pairing has a higher sum of scores.
scipy's `linear_sum_assignment` does the same, but importing it takes 0.36 s, and the core of ckpt
does without scipy. Taking the best score first, without exchanges, guesses worse where a module
has two copies (a trainer's network and its EMA).
"""

from collections.abc import Sequence
from math import inf

Table = Sequence[Sequence[float]]


def assign(scores: Table) -> list[int]:
    """The column of every row, -1 for none, so that the sum of the scores is greatest.

    Every row has a column, or every column a row. The Hungarian method with potentials takes
    rows x rows x columns steps.
    """
    rows, columns = len(scores), len(scores[0]) if scores else 0
    if rows > columns:
        flipped = assign([[row[j] for row in scores] for j in range(columns)])
        found = [-1] * rows
        for j, i in enumerate(flipped):
            found[i] = j
        return found
    u, v = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner = [0] * (columns + 1)  # the row of every column; both count from 1
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        least, way = [inf] * (columns + 1), [0] * (columns + 1)
        free = [*range(1, columns + 1)]
        while owner[column]:
            line, base = scores[owner[column] - 1], u[owner[column]]
            for j in free:
                cost = -line[j - 1] - base - v[j]
                if cost < least[j]:
                    least[j], way[j] = cost, column
            best = min(free, key=least.__getitem__)
            delta = least[best]
            for j in {*range(columns + 1)}.difference(free):
                u[owner[j]] += delta
                v[j] -= delta
            for j in free:
                least[j] -= delta
            free.remove(best)
            column = best
        while column:
            owner[column] = owner[way[column]]
            column = way[column]
    found = [-1] * rows
    for j in range(1, columns + 1):
        if owner[j]:
            found[owner[j] - 1] = j - 1
    return found


def rivals(scores: Table, found: Sequence[int], row: int) -> list[tuple[float, int]]:
    """The loss from giving `row` another column, as (loss, column), smallest loss first.

    It is the loss per changed row, from exchanging two rows or taking a free column; 0 or less
    means that the other pairing is as good.
    """
    mine = found[row]
    owners = {column: other for other, column in enumerate(found) if column >= 0}
    losses: list[tuple[float, int]] = []
    for column, score in enumerate(scores[row]):
        if column == mine:
            continue
        other = owners.get(column)
        if other is None:
            losses.append((scores[row][mine] - score, column))
            continue
        before = scores[row][mine] + scores[other][column]
        losses.append(((before - score - scores[other][mine]) / 2, column))
    losses += (
        (scores[row][mine] - scores[other][mine], mine)
        for other, column in enumerate(found)
        if column < 0
    )
    return sorted(losses)
