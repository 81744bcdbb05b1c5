"""Texts and numbers that are replaced in a pickle; Python's pickle is the oracle."""

import pickle
import pickletools
from collections.abc import Callable

import pytest

from ckpt.errors import FormatError
from ckpt.formats.pickle.edit import item_edits, rename_texts
from ckpt.formats.pickle.nodes import DictNode
from ckpt.formats.pickle.reader import ParsedPickle, read_pickle
from tests.formats import hostile
from tests.formats.hostile import put, text

NUMBERS = [0, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**45, 2**62, None]
# Pushed before the mapping, so that its keys get long numbers in the memo.
MANY = [f"{number}" for number in range(300)]


def read(data: bytes) -> ParsedPickle:
    return read_pickle(data, name="p", opcode_limit=len(data))


def numbers_changed(data: bytes, new: dict[str, int | None]) -> bytes:
    """The pickle of a list with other numbers in the mapping at its end."""
    found = read(data)
    assert isinstance(found.root, list)
    mapping = found.root[-1]
    assert isinstance(mapping, DictNode)
    return rename_texts(data, found, [], item_edits(data, mapping, new))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("before", [[], MANY], ids=["short memo", "long memo"])
def test_number_of_any_length_is_replaced(protocol: int, before: list[object]) -> None:
    for old in NUMBERS:
        data = pickle.dumps([*before, {"a": 7, "b": old, "c": old}], protocol)
        for new in NUMBERS:
            changed = numbers_changed(data, {"b": new})
            assert pickle.loads(changed) == [*before, {"a": 7, "b": new, "c": old}]  # noqa: S301


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("old", [{"a": 1}, {"a": 1, "b": 2}], ids=["one item", "two items"])
def test_items_that_a_mapping_lacks_follow_its_last_one(protocol: int, old: dict[str, int]) -> None:
    data = pickle.dumps([old], protocol)
    changed = numbers_changed(data, {"x": 3, "none": None, "a": 4, "y": 500})
    assert pickle.loads(changed) == [old | {"a": 4, "x": 3, "y": 500}]  # noqa: S301
    assert numbers_changed(data, {**old, "none": None}) is data


def test_number_behind_a_key_that_nothing_notes_is_replaced() -> None:
    data = pickletools.optimize(pickle.dumps([{"a": 1, "b": 2}], 2))
    changed = numbers_changed(data, {"a": 300})
    assert pickle.loads(changed) == [{"a": 300, "b": 2}]  # noqa: S301 - made above


def test_mapping_of_other_things_than_numbers_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^a is not a small number$"):
        numbers_changed(pickle.dumps([{"a": "text"}], 2), {"a": 1})
    with pytest.raises(FormatError, match=r"^a is not a small number$"):
        numbers_changed(pickle.dumps([{"a": "text"}], 4), {"a": 1})
    with pytest.raises(FormatError, match=r"^an empty mapping$"):
        numbers_changed(pickle.dumps([{}], 2), {"a": 1})


def short_get(slot: int) -> bytes:
    return b"h" + bytes([slot])


@pytest.mark.parametrize("get", [hostile.get, short_get])
def test_text_changes_at_its_own_places_alone(get: Callable[[int], bytes]) -> None:
    """The first is the literal that the second and third look up."""
    body = hostile.MARK + text("a") + put(0) + get(0) + get(0) + text("b") + put(1) + get(1) + b"t"
    data = hostile.PROTO2 + body + hostile.STOP
    found = read(data)
    assert isinstance(found.root, tuple)
    first, second, third, other, again = found.root

    def changed(*renames: tuple[object, str]) -> tuple[tuple[str, ...], int]:
        new = rename_texts(data, found, [(it, to) for it, to in renames])  # type: ignore[misc]
        return pickle.loads(new), len(new) - len(data)  # noqa: S301 - made above

    grown = len(text("x")) - len(get(0))
    assert changed((first, "x")) == (("x", "a", "a", "b", "b"), 2 * grown)
    assert changed((second, "x")) == (("a", "x", "a", "b", "b"), grown)
    assert changed((first, "x"), (third, "y")) == (("x", "a", "y", "b", "b"), 2 * grown)
    assert changed((first, "x"), (third, "a")) == (("x", "a", "a", "b", "b"), 2 * grown)
    assert changed((other, "x"), (again, "x")) == (("a", "a", "a", "x", "x"), grown)
    assert changed((first, "a"), (again, "b")) == (("a", "a", "a", "b", "b"), 0)


def test_frames_are_dropped_where_a_text_changes() -> None:
    """Wherever they begin; their lengths would be wrong."""
    parts = [text(name) for name in "abcd"]
    data = hostile.PROTO4 + b"".join(map(hostile.frame, [b"](", *parts, b"e."]))
    found = read(data)
    assert isinstance(found.root, list)
    assert len(found.frames) == 6
    new = rename_texts(data, found, [(found.root[2], "longer")])
    assert pickle.loads(new) == ["a", "b", "longer", "d"]  # noqa: S301 - made above
    assert new == hostile.PROTO4 + b"](" + b"".join(map(text, ["a", "b", "longer", "d"])) + b"e."
    assert rename_texts(data, found, [(found.root[2], "c")]) is data
