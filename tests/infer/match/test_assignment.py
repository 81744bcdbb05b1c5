"""The best pairing, against all of them."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from ckpt.infer.match.assignment import assign, rivals

TABLES = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(0, 9), min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


def total(scores: list[list[int]], found: list[int]) -> int:
    return sum(scores[row][column] for row, column in enumerate(found) if column >= 0)


@given(TABLES)
def test_no_pairing_is_better(scores: list[list[int]]) -> None:
    rows, columns = len(scores), len(scores[0])
    found = assign(scores)
    chosen = [column for column in found if column >= 0]
    assert len(chosen) == len({*chosen}) == min(rows, columns)
    wide = range(max(rows, columns))
    best = max(
        sum(scores[row][order[row]] for row in range(rows) if order[row] < columns)
        for order in permutations(wide, rows)
    )
    assert total(scores, found) == best


def test_nothing_to_pair() -> None:
    assert assign([]) == []


def test_rivals_are_exchanges_and_what_is_free() -> None:
    scores = [[5.0, 4.0, 1.0], [4.0, 4.0, 0.0]]
    assert rivals(scores, [0, 1], 0) == [(0.5, 1), (4.0, 2)]
    assert rivals([[5.0], [3.0]], [0, -1], 0) == [(2.0, 0)]
