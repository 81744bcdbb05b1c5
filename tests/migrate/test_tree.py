"""The tree of keys, changed in part."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.migrate.tree import regrown, tree_of
from ckpt.tensors import TensorEntry
from tests.effort import examples

KEYS = st.lists(st.sampled_from("ab0"), min_size=1, max_size=3).map(".".join)
SHAPES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
STATES = st.dictionaries(KEYS, SHAPES, max_size=8)


def entries(shapes: dict[str, tuple[int, ...]]) -> list[TensorEntry]:
    return [TensorEntry(key, "float32", shape) for key, shape in shapes.items()]


@given(STATES, STATES)
@settings(max_examples=examples(300), deadline=None)
def test_a_tree_changed_in_part_is_that_of_the_keys_after_it(
    before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]
) -> None:
    tree = tree_of(entries(before))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    gone = [key.split(".") for key in before if key in changed]
    added = [(key.split("."), shape) for key, shape in after.items() if key in changed]
    assert regrown(tree, gone, added) == tree_of(entries(after))
    assert tree == tree_of(entries(before))
