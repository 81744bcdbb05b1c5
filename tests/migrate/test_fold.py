"""Folded schemas: written and read again, and matched by other depths and widths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.definitions import find_definition
from ckpt.migrate.fold import (
    Folded,
    Leaf,
    folded,
    merged,
    mismatch,
    template_of,
)
from ckpt.migrate.lines import block_counts, read, written  # fmt: skip
from ckpt.migrate.schema import Schema, schema_of
from ckpt.migrate.tree import tree_of
from ckpt.tensors import TensorEntry
from tests.effort import examples as count

PARTS = st.sampled_from(
    ["a", "b", "conv1", "conv2", "layer_0", "layer_1", "0", "1", "2", "{i}", "é", "w"]
)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)
STATES = st.dictionaries(KEYS, SHAPES, min_size=1, max_size=30)


def entries(shapes: dict[str, tuple[int, ...]]) -> list[TensorEntry]:
    return [TensorEntry(key, "float32", shape) for key, shape in shapes.items()]


def schema(ref: str) -> Schema:
    return schema_of(find_definition(ref).state())


@given(STATES)
@settings(max_examples=count(400), deadline=None)
def test_a_state_dict_matches_its_own_folded_form(shapes: dict[str, tuple[int, ...]]) -> None:
    tree = tree_of(entries(shapes))
    made = folded(tree)
    assert mismatch(made, tree) is None
    assert all(template_of(made, key) for key in shapes)
    again = read(written(made), block_counts(made))
    assert written(again) == written(made)
    assert mismatch(again, tree) is None


@given(STATES, KEYS, SHAPES)
@settings(max_examples=count(400), deadline=None)
def test_one_more_key_or_one_less_is_seen_unless_a_block_explains_it(
    shapes: dict[str, tuple[int, ...]], key: str, shape: tuple[int, ...]
) -> None:
    made = folded(tree_of(entries(shapes)))
    if key not in shapes and template_of(made, key) is None:
        assert mismatch(made, tree_of(entries({**shapes, key: shape}))) is not None
    gone = next(iter(shapes))
    leaf = dict(made.lines())[template_of(made, gone) or ""]
    if "{" not in (template_of(made, gone) or "").replace("{{", "") and not leaf.optional:
        rest = {name: it for name, it in shapes.items() if name != gone}
        if not gone.endswith("num_batches_tracked"):
            assert mismatch(made, tree_of(entries(rest))) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("vit_b_16", "vit_l_16"),
     ("densenet121", "densenet169"), ("convnext_tiny", "convnext_small")],
)  # fmt: skip
def test_families_of_torchvision_share_a_folded_schema(one: str, other: str) -> None:
    first, second = (schema(f"torchvision.models:{name}") for name in (one, other))
    assert mismatch(folded(first.tree), second.tree) is None
    assert len(written(folded(first.tree))) < 60


@pytest.mark.parametrize(("one", "other"), [("resnet18", "resnet50"), ("vgg11", "vgg11_bn")])
def test_other_architectures_do_not(one: str, other: str) -> None:
    first, second = (schema(f"torchvision.models:{name}") for name in (one, other))
    assert mismatch(folded(first.tree), second.tree) is not None


def test_ranks_that_contradict_are_not_merged() -> None:
    assert merged(Folded(Leaf((1, 2))), Folded(Leaf((1,)))) is None


def test_order_and_dtype_are_no_part_of_a_schema() -> None:
    one = Schema(tuple(entries({"a": (1,), "b": (2,)})))
    other = Schema((TensorEntry("b", "bfloat16", (2,)), TensorEntry("a", "int8", (1,))))
    assert one.digest == other.digest
    assert one.digest != Schema(tuple(entries({"a": (1,), "b": (3,)}))).digest
    assert one.digest != Schema(one.entries, number=2).digest
