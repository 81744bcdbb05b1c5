"""Names in `__metadata__`: a text changes only if a name in it does."""

import json

import pytest

from ckpt.formats.naming.metadata import keys_in, parted, with_new_names

PARTS = json.dumps({"_tensor_data_names": ["qdata", "scale"]})
# torchao's, with blanks that a text loses if it is written again.
SPLIT = {"note": "x", "tensor_names": '[ "fc.weight", "bias" ]', "fc.weight": PARTS, "bias": "{}"}
SHARDED = {"DCP_SHARDING_INFO": '{ "a.w": 1, "m.w": 2 }'}


def moved(to: str) -> dict[str, str]:
    """The parts of `fc.weight`, renamed to those of another tensor."""
    module, _, last = to.rpartition(".")
    return {f"fc._weight_{word}": f"{module}._{last}_{word}" for word in ("qdata", "scale")}


def test_keys_are_names_and_those_of_parts() -> None:
    split = {"fc.weight", "fc._weight_qdata", "fc._weight_scale", "bias"}
    assert keys_in({**SPLIT, **SHARDED}) == {*split, "a.w", "m.w"}


@pytest.mark.parametrize("new", ["a.weight", "z.weight", "fc.w"])
def test_tensor_follows_its_parts(new: str) -> None:
    """Whether its new name sorts before the old one or after."""
    found = with_new_names(SPLIT, moved(new))
    assert list(found.items()) == [
        ("note", "x"),
        ("tensor_names", f'["{new}", "bias"]'),
        (new, PARTS),
        ("bias", "{}"),
    ]
    assert parted(SPLIT, moved(new)) == []


@pytest.mark.parametrize("new", ["a", "z"])
def test_tensor_that_is_whole_follows_its_key(new: str) -> None:
    found = with_new_names(SPLIT, {"bias": new})
    assert (found["tensor_names"], found[new]) == (f'["fc.weight", "{new}"]', "{}")
    assert parted(SPLIT, {"bias": new}) == []


APART = {
    "one stays": {"fc._weight_qdata": "a._weight_qdata"},
    "one goes further": {"fc._weight_scale": "z._weight_scale"},
    "to two tensors": {"fc._weight_qdata": "a._w_qdata", "fc._weight_scale": "b._w_scale"},
    "without an underscore": {"fc._weight_qdata": "a.bw_qdata", "fc._weight_scale": "a.bw_scale"},
    "with another end": {"fc._weight_qdata": "a._w_data", "fc._weight_scale": "a._w_size"},
    "without a name": {"fc._weight_qdata": "a.__qdata", "fc._weight_scale": "a.__scale"},
    "with the end alone": {"fc._weight_qdata": "a._qdata", "fc._weight_scale": "a._scale"},
}


@pytest.mark.parametrize("new_keys", APART.values(), ids=APART)
def test_tensor_stays_whose_parts_move_otherwise(new_keys: dict[str, str]) -> None:
    assert with_new_names(SPLIT, new_keys) == SPLIT
    assert parted(SPLIT, new_keys) == list(new_keys)


OTHERS = {
    "nothing is renamed": SPLIT,
    "not JSON": {"tensor_names": "[fc", "fc.weight": "fc"},
    "not a list": {"tensor_names": '"bias"', "bias": "{}"},
    "not text": {"tensor_names": "[1]", "bias": "{}"},
    "a name without a description": {"tensor_names": '["fc.weight", "bias"]', "fc.weight": "{}"},
    "a name twice": {"tensor_names": '["bias", "bias"]', "bias": "{}"},
    "a tensor of no parts": {"tensor_names": '["bias"]', "bias": '{"_tensor_data_names": []}'},
    "not an object": {"DCP_SHARDING_INFO": '["bias"]'},
    "two keys would be one": {"DCP_SHARDING_INFO": '{"bias": 1, "other": 2}'},
    "two names would be one": {**SPLIT, "other": "y"},
}


@pytest.mark.parametrize("metadata", OTHERS.values(), ids=OTHERS)
def test_text_of_another_form_is_kept(metadata: dict[str, str]) -> None:
    new_keys = {} if metadata is SPLIT else {"bias": "other"}
    assert with_new_names(metadata, new_keys) == metadata


@pytest.mark.parametrize("new", ["b.w", "z.w"])
def test_key_of_a_part_of_a_rank_follows(new: str) -> None:
    assert with_new_names(SHARDED, {"m.w": new}) == {
        "DCP_SHARDING_INFO": f'{{"a.w": 1, "{new}": 2}}'
    }
    assert with_new_names(SHARDED, {"fc.w": new}) == SHARDED
