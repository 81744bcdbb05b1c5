"""Steps become rules that do the same; the oracle is Python's own slice."""

import pytest

from ckpt.errors import PlanError
from ckpt.ops.rules.steps import tables_of_steps
from ckpt.rules.document import read_rule
from ckpt.rules.expressions import Source
from ckpt.rules.planned import Planned


def rows(start: int, stop: int | None) -> int:
    """How many of six rows the rule for a slice takes."""
    (table,) = tables_of_steps({"w": (("slice", "dim", (0, start, stop)),)}, ["w"])
    (made,) = read_rule(table, name="it").run([Planned("w", Source("w", "float32", (6, 2)))])
    return made.made_of.shape[0]


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 3), (2, None), (2, 4), (0, -1)])
def test_slice_takes_the_same_rows(start: int, stop: int | None) -> None:
    assert rows(start, stop) == len(range(6)[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5)])
def test_slice_of_nothing_is_not_the_whole(start: int, stop: int) -> None:
    with pytest.raises(PlanError, match="has no elements"):
        rows(start, stop)
