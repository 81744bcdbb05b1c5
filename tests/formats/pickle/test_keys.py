"""Keys of mappings: which are equal, how they are shown, and which are copies of others."""

import pickle
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from ckpt.formats.pickle.keys import (
    copied_keys,
    filtered,
    identity,
    names_in,
    shown_path,
    typed,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Text
from ckpt.formats.pickle.reader import read_pickle

VALUES = [
    *(0, 1, 2, -1, 256, 2**60, True, False, None),
    *(0.0, -0.0, 1.0, 1.5, float("inf"), float(2**60), 1e300),
    *("", "0", "1", "1.5", "None", b"", b"1", "é", b"\xe9"),
    *((), (1,), (True,), (1.0,), ((1,),), ("1",), (b"1",), (1, 2), (None,)),
    *(np.int64(1), np.float64(1.5), np.float32(1), np.bool_(True), np.str_("1"), np.uint8(0)),
    *(torch.Size([1]), torch.Size([1, 2]), torch.Size([])),
    *(PurePosixPath("1"), torch.float32, torch.device("cpu"), frozenset({1}), timedelta(1)),
]


def nodes(values: Any, protocol: int) -> Any:
    data = pickle.dumps(values, protocol)
    return read_pickle(data, name="p", opcode_limit=len(data)).root


@pytest.mark.parametrize("protocol", [2, 4])
def test_identity_is_equal_for_keys_that_python_holds_for_equal(protocol: int) -> None:
    texts = [identity(node) for node in nodes(VALUES, protocol)]
    for value, text in zip(VALUES, texts, strict=True):
        equal = [other in {value} for other in VALUES]
        assert [other == text for other in texts] == equal, value


def nested(times: int) -> tuple[object, ...]:
    return (nested(times - 1),) if times else ()


@pytest.mark.parametrize("read", [typed, identity])
@pytest.mark.parametrize(
    ("most", "more"),
    [
        ((7,) * 99, (7,) * 100),
        (((1,) * 49, (1,) * 48), ((1,) * 49, (1,) * 49)),
        (nested(8), nested(9)),
    ],
    ids=["items", "items of two", "levels"],
)
def test_key_has_a_hundred_parts_and_nine_levels_at_most(
    read: Any, most: object, more: object
) -> None:
    read(most)
    with pytest.raises(ValueError, match=r"^a key with too many parts$"):
        read(more)


def test_key_has_a_thousand_characters_at_most() -> None:
    most = b"x" * (1000 - len("b'' (bytes)"))
    assert len(typed(most)) == 1000
    with pytest.raises(ValueError, match=r"^a key with too many characters$"):
        typed(most + b"x")


def test_size_of_a_hundred_numbers_is_a_key() -> None:
    assert identity(Call("torch.Size", ((1,) * 99,))) == identity((1,) * 99)
    assert identity(Call("torch.Size", ((1,) * 100,)))
    for other in ((1,) * 101, (1, True), (1, 1.0), [1]):
        with pytest.raises(ValueError, match="a key that is not a plain value"):
            identity(Call("torch.Size", (other,)))


def test_path_with_types_and_without() -> None:
    path = ("a", 0, (1,), b"x", Call("_codecs.encode", (text("é"), "latin1")))
    assert shown_path(path) == r"a.0.(1,).b'x'.b'\xe9'"
    assert shown_path(path, with_types=True) == (
        r"a.0 (int).(1,) (tuple).b'x' (bytes).b'\xe9' (bytes)"
    )
    with pytest.raises(ValueError, match=r"^torch\.Size\(…\) is$"):
        shown_path(("a", Call("torch.Size", ((1,),))))


@pytest.mark.parametrize(
    ("own", "copied"),
    [
        (["w", "x"], {"w": ("", "w")}),
        (["module.w", "module.fc.b", "n_averaged"], {
            "module.w": ("module.", "w"), "module.fc.b": ("module.", "fc.b"),
        }),
        # One prefix for all: that of a key without one, if there is such a key.
        (["w", "module.w"], {"w": ("", "w")}),
        (["ema.w", "model.w"], {"model.w": ("model.", "w")}),
        (["state.w.exp_avg", "state.fc.b.step", "param_groups.w.lr", "state.no.m", "state.w"], {
            "state.w.exp_avg": ("state.", "w"), "state.fc.b.step": ("state.", "fc.b"),
            "param_groups.w.lr": ("param_groups.", "w"),
        }),
        (["xmodule.w", "modulew", "other.w.lr"], {}),
        ([], {}),
    ],
    ids=["plain", "prefix", "both", "two prefixes", "flattened", "others", "none"],
)  # fmt: skip
def test_keys_of_a_copy_name_their_originals(
    own: list[str], copied: dict[str, tuple[str, str]]
) -> None:
    assert copied_keys(own, ["w", "fc.b"]) == copied


def text(value: str) -> Text:
    made = Text(value)
    made.start = made.origin = made.nbytes = 0
    return made


def test_texts_are_left_out_of_lists_and_mappings() -> None:
    a, b, c = map(text, "abc")
    assert filtered([a, 1, b, "a"], {"a", "1"}) == [1, b]
    mapping = DictNode([(a, 1), (b, 2), (1, 3)], ordered=True, state=c)
    left = filtered(mapping, {"a", "1"})
    assert isinstance(left, DictNode)
    assert (left.items, left.ordered, left.state) == ([(b, 2), (1, 3)], True, c)
    # A mapping of texts to texts names keys on both sides, any other one as its keys.
    for value, items in ((c, [(b, c)]), (1, [(c, a), (b, 1)])):
        names = filtered(DictNode([(a, b), (c, a), (b, value)]), {"a"})
        assert isinstance(names, DictNode)
        assert names.items == items


def test_names_have_dots_and_lead_to_no_tensors() -> None:
    one, two = text("a.b"), text("c.d")
    plain = text("word")
    tensor = Call("torch._utils._rebuild_tensor_v2", ())
    assert names_in([one, two]) == [one, two]
    assert names_in(DictNode([(one, two), (two, one)])) == [one, two, two, one]
    assert names_in(DictNode([(one, two), (two, 1)])) == [one, two]
    for other in ([], [one, plain], [one, 1], [one, "c.d"]):
        assert names_in(other) == []
    for items in ([], [(one, 1), (plain, 1)], [(one, tensor), (two, 1)], [(1, one)]):
        assert names_in(DictNode(items)) == []
