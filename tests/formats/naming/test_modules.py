"""A module goes where its tensors go, if they stay together and no other module is there."""

import pytest

from ckpt.formats.naming.modules import moved_modules

CASES = {
    "its tensors move together": ({"a.w": "b.x", "a.b": "b.y"}, {"a": "b"}),
    "to another depth": ({"a.w": "b.c.w"}, {"a": "b.c"}),
    "torn apart": ({"a.w": "b.w", "a.b": "c.b"}, {"a": "a"}),
    "one tensor stays": ({"a.w": "b.w", "a.b": "a.b"}, {"a": "a"}),
    "of modules alone": ({"m.a.w": "n.a.w", "m.b.w": "n.b.w"}, {"m": "n", "m.a": "n.a"}),
    "deeper": ({"m.k.a.w": "n.k.a.w"}, {"m": "n", "m.k": "n.k", "m.k.a": "n.k.a"}),
    "of a module with a later name": ({"m.a.w": "n.b.w"}, {"m": "m", "m.a": "n.b"}),
    "of a module with an earlier name": ({"m.b.w": "n.a.w"}, {"m": "m", "m.b": "n.a"}),
    "around a module with another name": ({"m.k.b.w": "n.k.a.w"}, {"m": "m", "m.k": "m.k"}),
    "with tensors of its own as well": (
        {"m.w": "n.w", "m.a.w": "n.b.w"},
        {"m": "n", "m.a": "n.b"},
    ),
    "without tensors that move": ({"x.w": "y.w"}, {"a": "a", "m": "m"}),
    "to one that stays later": ({"a.w": "b.w", "b.x": "b.x"}, {"a": "a", "b": "b"}),
    "to one that stays earlier": ({"z.w": "b.w", "b.x": "b.x"}, {"z": "z", "b": "b"}),
    "two to one place": ({"a.w": "c.w", "b.w": "c.x"}, {"a": "c", "b": "b"}),
    "two in their other order": ({"a.w": "c.w", "b.w": "c.x"}, {"b": "c", "a": "a"}),
    "each to the place of the other": ({"a.w": "b.w", "b.w": "a.w"}, {"a": "b", "b": "a"}),
    "to the place of one that stays after all": (
        {"a.w": "b.w", "b.w": "c.w", "c.w": "c.x"},
        {"a": "a", "b": "b", "c": "c"},
    ),
}


@pytest.mark.parametrize(("new_keys", "expected"), CASES.values(), ids=CASES)
def test_module_follows_its_tensors(new_keys: dict[str, str], expected: dict[str, str]) -> None:
    assert moved_modules(list(expected), new_keys) == expected
