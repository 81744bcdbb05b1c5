"""A pickle that is written again keeps its values; Python's and torch's readers are the oracle."""

import math
import pickle
import zipfile
from collections import OrderedDict
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from ckpt.formats.pickle.nodes import Call, DictNode
from ckpt.formats.pickle.plain import PlainPickle, plain_pickle
from ckpt.formats.pickle.reader import read_pickle
from tests.formats import hostile
from tests.formats.hostile import call, global_, text, tuple_of
from tests.formats.support import expected, loaded, saved, torch_file

SHARED: list[Any] = ["shared", 1]
VALUES = [
    *(None, True, False, 0, 1, -1, 127, 128, 255, 256, -128, -129, 2**31, 2**70, -(2**70)),
    *(0.5, -0.0, math.inf, "", "a", "ä\ud800", b"\xff\x00a"),
    *((), (1,), (1, 2, 3, 4), [], [1, [2, (3,)]], {}, {"a": 1, 2: "b", (3, "c"): None, b"d": []}),
    *({1}, OrderedDict(a=1), {"first": SHARED, "second": [SHARED, SHARED]}),
]


def read(data: bytes) -> Any:
    return read_pickle(data, name="p", opcode_limit=len(data), opaque=True).root


def rewritten(value: object, protocol: int = 2) -> PlainPickle:
    return plain_pickle(read(pickle.dumps(value, protocol)))


@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_values_stay_what_they_are(protocol: int) -> None:
    plain = rewritten(VALUES, protocol)
    theirs = pickle.loads(plain.data)  # noqa: S301 - made above
    assert theirs == VALUES == loaded(torch_file(plain.data))
    assert list(map(type, theirs)) == list(map(type, VALUES))
    assert theirs[-1]["first"] is theirs[-1]["second"][0] is theirs[-1]["second"][1]
    assert (plain.changed, plain.storages) == ((), set())


@pytest.mark.parametrize("number", [2**31, 2**39 - 1, 2**39, 2**70, -(2**31) - 1, -(2**70) - 1])
def test_long_number_is_written_as_python_writes_it(number: int) -> None:
    assert rewritten(number).data == pickle.dumps(number, 2)


def test_attributes_of_an_ordered_dict_stay() -> None:
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    with_metadata = OrderedDict(a=1)
    with_metadata._metadata = dict(state._metadata)  # type: ignore[attr-defined]
    again = pickle.loads(rewritten(with_metadata).data)  # noqa: S301 - made above
    assert (again, again._metadata) == (with_metadata, dict(state._metadata))


def items(code: bytes) -> bytes:
    return hostile.PROTO2 + b"](" + code + b"e" + hostile.STOP


FOREIGN = call("os", "system", text("x"))


def test_what_is_dropped_leaves_none_in_lists_and_nothing_in_dicts() -> None:
    held = hostile.DICT + hostile.MARK + text("a") + FOREIGN + text("b") + b"K\x01u"
    key = hostile.DICT + hostile.MARK + FOREIGN + b"K\x02" + text("c") + b"K\x03u"
    plain = plain_pickle(read(items(FOREIGN + b"K\x07" + tuple_of(FOREIGN, b"K\x08") + held + key)))
    assert pickle.loads(plain.data) == [None, 7, (None, 8), {"b": 1}, {"c": 3}]  # noqa: S301
    assert plain.changed == (
        *("0 (os.system)", "2.0 (os.system)", "3.a (os.system)", "4.os.system(…)"),
    )


def test_values_of_other_classes_are_made_plain_or_lose_their_attributes() -> None:
    namespace = global_("argparse", "Namespace") + b")\x81" + hostile.DICT + text("lr") + b"K\x05sb"
    when = call("datetime", "date", call("_codecs", "encode", text("\x07\xea\x0b\x19"),
                                         text("latin1")))  # fmt: skip
    device = call("torch", "device", text("cpu")) + hostile.DICT + text("x") + b"K\x01sb"
    frozen = call("builtins", "frozenset", b"]")
    plain = plain_pickle(read(items(namespace + when + device + frozen)))
    assert pickle.loads(plain.data) == [  # noqa: S301 - made above
        *({"lr": 5}, "2026-11-25", torch.device("cpu"), None),
    ]
    assert plain.changed == (
        *("0 (argparse.Namespace, made plain)", "1 (datetime.date, made plain)"),
        *("2 (attributes of torch.device)", "3 (builtins.frozenset)"),
    )


def test_array_of_numpy_is_dropped() -> None:
    """Although its description would be a text."""
    plain = plain_pickle(read(pickle.dumps([np.zeros(2), np.float64(0.5)], 2)))
    assert pickle.loads(plain.data) == [None, 0.5]  # noqa: S301 - made above
    first, second = plain.changed
    assert first.endswith(".multiarray._reconstruct)")
    assert second.endswith(".multiarray.scalar, made plain)")


def test_nodes_are_left_out_replaced_or_kept_by_name() -> None:
    namespace = global_("argparse", "Namespace") + b")\x81" + hostile.DICT + text("lr") + b"K\x05sb"
    root = read(items(b"](K\x01e" + b"](K\x02e" + namespace))
    first, second, kept = root
    assert isinstance(kept, Call)
    plain = plain_pickle(root, frozenset({id(first)}), {id(second): DictNode([(1, "x")])})
    assert pickle.loads(plain.data) == [{1: "x"}, {"lr": 5}]  # noqa: S301 - made above
    plain = plain_pickle(root, kept=frozenset({"argparse.Namespace"}))
    one, two, namespace_ = pickle.loads(plain.data)  # noqa: S301 - made above
    assert (one, two, vars(namespace_), plain.changed) == ([1], [2], {"lr": 5}, ())
    inner = read(
        hostile.PROTO2 + hostile.DICT + hostile.MARK + text("a") + b"]" + text("b") + b"Nu."
    )
    plain = plain_pickle(inner, frozenset({id(inner.items[0][1])}))
    assert pickle.loads(plain.data) == {"b": None}  # noqa: S301 - made above


def test_tensors_take_their_usual_form() -> None:
    state = {
        "plain": torch.arange(6.0).reshape(2, 3).T,
        "grad": torch.ones(2, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "uint16": torch.arange(3).to(torch.uint16),
    }
    state["attribute"] = torch.nn.Parameter(torch.ones(3))
    state["attribute"].note = "lost"  # type: ignore[attr-defined]
    old = hostile.call("torch._utils", "_rebuild_tensor", hostile.storage(), b"K\0", b"K\4\x85",
                       b"K\1\x85")  # fmt: skip
    records = records_of(state)
    plain = plain_pickle(read(records["data.pkl"]))
    storages = {key: records[f"data/{key}"] for key in plain.storages}
    again = loaded(torch_file(plain.data, storages))
    assert expected(again) == expected(state)
    assert [(type(it), it.requires_grad) for it in again.values()][:5] == [
        (type(it), it.requires_grad) for it in state.values()
    ][:5]
    assert plain.storages == {f"{number}" for number in range(6)}
    first = loaded(torch_file(plain_pickle(read(items(old))).data, {"0": bytes(range(16))}))
    assert expected({"": first[0]})[""] == ("float32", (4,), bytes(range(16)))
    assert first[0].requires_grad is False


def records_of(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """What `torch.save` writes, by name."""
    with zipfile.ZipFile(BytesIO(saved(state))) as archive:
        return {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
