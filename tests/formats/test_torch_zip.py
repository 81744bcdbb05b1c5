"""What torch.save writes is read as torch.load reads it, or refused by name."""

import argparse
import datetime
import shlex
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from io import BytesIO
from pathlib import PurePosixPath
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats import open_checkpoint
from ckpt.formats.opaque import LaidOut, unopened
from ckpt.formats.torch_zip import recognises
from ckpt.formats.zip.writer import NewMember, lay_out_archive
from ckpt.tensors import Span
from tests.formats import hostile
from tests.formats.support import (
    Zeros,
    contents,
    expected,
    loaded,
    opened,
    renamed,
    saved,
    torch_file,
)

LINEAR = OrderedDict({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)})


def trained() -> dict[str, Any]:
    """A training checkpoint as scripts write it."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": float("nan"),
        "history": [1.5, float("inf")],
    }


def with_attribute(tensor: torch.Tensor) -> torch.Tensor:
    tensor.note = "kept by torch, not read"
    return tensor


KINDS = {
    "plain": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(3),
    "no bytes": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "parameter with an attribute": with_attribute(torch.nn.Parameter(torch.ones(2))),
    "tensor with an attribute": with_attribute(torch.ones(2)),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "slice": torch.arange(10)[2:9:3],
    "view with an offset": torch.arange(10)[4:],
    "column": torch.arange(12.0).reshape(3, 4)[:, 1],
    "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
    "channels last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "expanded": torch.ones(1, 3).expand(4, 3),
    "overlapping": torch.arange(6.0).as_strided((3, 4), (1, 1)),
    "odd stride of a dimension of one": torch.ones(6).as_strided((1, 3), (77, 1)),
}


@pytest.mark.parametrize("name", KINDS)
def test_tensor_is_read_bit_for_bit(name: str) -> None:
    state = {"before": torch.ones(1), "it": KINDS[name]}
    assert contents(opened(saved(state))) == expected(state)


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
    *(torch.float8_e8m0fnu, torch.complex128, torch.complex64, torch.complex32, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
]


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fault_15_dtypes_are_read(dtype: torch.dtype) -> None:
    state = {"it": torch.tensor([0, 1, 2]).to(dtype), "rest": torch.ones(1)}
    assert contents(opened(saved(state))) == expected(state)


def refused_kinds() -> dict[str, tuple[torch.Tensor, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = torch.ones(3)
        return {
            "sparse": (torch.eye(3).to_sparse(), "a sparse tensor"),
            "csr": (torch.eye(3).to_sparse_csr(), "a sparse tensor"),
            "meta": (torch.empty(3, device="meta"), "a meta tensor"),
            "nested": (torch.nested.nested_tensor([ones, ones]), "a nested tensor"),
            "quantised": (
                torch.quantize_per_tensor(ones, 1.0, 0, torch.qint8),
                "a quantised tensor",
            ),
            "conjugated": (torch.ones(3, dtype=torch.complex64).conj(), "'conj' bit is set"),
            "negated": (torch.ones(3, dtype=torch.complex64).conj().imag, "'neg' bit is set"),
        }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", refused_kinds())
@pytest.mark.parametrize("place", ["state_dict", "beside it"])
def test_fault_15_what_has_no_plain_bytes_is_refused_by_name(name: str, place: str) -> None:
    tensor, says = refused_kinds()[name]
    value = {"it": tensor} if place == "state_dict" else {"model": LINEAR, "more": [tensor]}
    with pytest.raises(FormatError) as refused:
        opened(saved(value))
    where = "it" if place == "state_dict" else "more.0"
    assert str(refused.value).startswith(f"file: {where}: ")
    assert says in str(refused.value)


def test_ties_share_their_bytes() -> None:
    tied = torch.ones(4)
    first, second, part = opened(saved({"a": tied, "b": tied, "c": tied[1:3]})).entries
    assert first.span == second.span
    assert part.offset == first.offset + 4


def test_spans_hold_all_tensors_of_the_file() -> None:
    value = trained()
    checkpoint = opened(saved(value))
    held = {
        checkpoint.source.read(span.offset, span.nbytes)
        for span in checkpoint.spans
    }  # fmt: skip
    state = value["optimizer"]["state"][0]
    assert {data for _, _, data in expected(state).values()} <= held
    assert {data for _, _, data in expected(value["model"]).values() if data} <= held
    ends = [span.end for span in checkpoint.spans]
    assert all(end <= span.offset for end, span in zip(ends, checkpoint.spans[1:], strict=False))


def test_rest_is_what_is_beside_the_tensors_and_fit_for_json() -> None:
    checkpoint = opened(saved(trained()))
    rest = dict(checkpoint.rest)
    assert rest.pop("optimizer")["param_groups"][0]["betas"] == [0.9, 0.999]
    assert rest == {
        "epoch": 3,
        "best": "nan",
        "history": [1.5, "inf"],
        "_metadata": {"": {"version": 1}, "0": {"version": 1}, "1": {"version": 2}},
    }


def test_settings_that_name_a_weight_are_not_a_module() -> None:
    statistics = {"mean": torch.ones(3), "weight_decay": 0.1}
    checkpoint = opened(saved({"model": {"fc.weight": torch.ones(2)}, "statistics": statistics}))
    assert [entry.key for entry in checkpoint.entries] == ["fc.weight"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocol_is_a_hindrance_where_torch_refuses_it(protocol: int) -> None:
    data = saved(LINEAR, pickle_protocol=protocol)
    try:
        loaded(data)
    except UnpicklingError:
        assert unopened(opened(data)) == (f"pickle protocol {protocol}",)
    else:
        assert unopened(opened(data)) == ()


def test_versions_of_one_module_are_shown_whole() -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    assert opened(saved(state)).rest == {"_metadata": dict(state._metadata)}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.Size([1, 2]), [1, 2]),
        ({3}, [3]),
        (b"abc", "3 bytes"),
        (1 + 2j, "builtins.complex(1.0, 2.0)"),
        (torch.float32, "torch.float32"),
        (torch.device("cpu"), "torch.device('cpu')"),
        (Counter("a"), {"a": 1}),
        ({1: "a", "1": "b", (1, 2): "c", None: "d"}, None),
        (2**100, 2**100),
        ("\ud800\x1b", "\\ud800\x1b"),
        ("x" * 5000, "x" * 1000 + "…"),
        (torch.ones(1), "a tensor"),
        (list(range(5000)), None),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_values_are_described(value: object, shown: object) -> None:
    rest = opened(saved({"model": LINEAR, "value": [value]})).rest
    if type(value) is dict:
        shown = {"1": "a", "1 (text)": "b", "(1, 2)": "c", "None": "d"}
    if isinstance(value, list):
        assert len(rest["value"][0]) < 1010
        return
    assert rest["value"] == [shown]


def test_values_inside_the_state_dict_are_part_of_the_rest() -> None:
    value = {"m": {"model": LINEAR | {"_extra_state": 7}, "epoch": 3}, "z": {}}
    checkpoint = opened(saved(value))
    assert [entry.key for entry in checkpoint.entries] == ["weight", "bias"]
    assert checkpoint.rest == {"m": {"model": {"_extra_state": 7}, "epoch": 3}, "z": {}}


CHOICES = [
    (LINEAR, None, ["weight", "bias"]),
    ({"model": LINEAR, "epoch": 1}, None, ["weight", "bias"]),
    ({"state": {"model": LINEAR}}, None, ["weight", "bias"]),
    ({"model": LINEAR, "ema": {"model": {"x": torch.ones(1)}}}, "ema.model", ["x"]),
    ({"model": LINEAR, "ema": {"model": {"x": torch.ones(1)}}}, "model", ["weight", "bias"]),
    ({"model": LINEAR, "last_loss": torch.ones(1)}, None, ["weight", "bias"]),
    (LINEAR | {"extra": {"scale": torch.ones(1)}}, None, ["weight", "bias"]),
    (LINEAR | {"extra": {"scale": torch.ones(1)}}, "extra", ["scale"]),
    ({"model": LINEAR, "last_loss": torch.ones(1)}, "model", ["weight", "bias"]),
    ({}, None, []),
    # Scores that trainers keep as tensors are no state_dict beside others.
    ({"model": LINEAR, "best": {"a.ckpt": torch.tensor(1.0)}}, None, ["weight", "bias"]),
    ({"best": {"a.ckpt": torch.tensor(1.0)}}, None, ["a.ckpt"]),
    # What an optimizer holds for a parameter is none either, whatever leads to it.
    (
        {"model": LINEAR, "opt": {"state": {"weight": {"m": torch.ones(2)}}, "param_groups": []}},
        None,
        ["weight", "bias"],
    ),
    ({"state": {"w": {"m": torch.ones(2)}}, "param_groups": []}, None, ["state.w.m"]),
    ({"model": LINEAR, "opt": {"state": 3, "param_groups": []}}, None, ["weight", "bias"]),
    (
        {"opt": {"state": {}, "param_groups": [], "more": {"m": {"w": torch.ones(2)}}}},
        None,
        ["w"],
    ),
    ({"optimizer": {0: {"x": torch.ones(1)}}}, None, ["optimizer.0.x"]),
    ({"m": LINEAR, "optimizer": {0: {"x": torch.ones(1)}}}, "optimizer", ["0.x"]),
    ({"m": LINEAR, "parts": [torch.ones(1), [torch.ones(2)]]}, "parts", ["0", "1.0"]),
    ([torch.ones(1), {"a": torch.ones(1)}], None, ["0", "1.a"]),
    ({0: {"x": torch.ones(1)}, "0": [torch.ones(1)]}, None, ["0.x", "0.0"]),
    ({"a": [{0: torch.ones(1), "0": torch.ones(1)}]}, None, ["a.0 (int).0 (int)", "a.0 (int).0"]),
]


@pytest.mark.parametrize(("value", "inside", "keys"), CHOICES, ids=range(len(CHOICES)))
def test_state_dict_is_chosen(value: object, inside: str | None, keys: list[str]) -> None:
    assert [entry.key for entry in opened(saved(value), inside).entries] == keys


def test_hint_can_be_typed_as_it_is() -> None:
    with pytest.raises(FormatError) as refused:
        opened(saved({"a": LINEAR, "Model{'monitor': 'x'}": LINEAR.copy()}))
    words = shlex.split(str(refused.value.hint).removeprefix("name one: "))
    assert words == ["file::a", "or", "file::Model{'monitor': 'x'}"]


def test_pickled_object_is_answered_with_how_to_save_its_weights() -> None:
    with pytest.raises(FormatError) as refused:
        opened(saved(torch.optim.SGD([torch.ones(2)])))
    assert "refused global torch.optim.sgd.SGD at offset 2" in str(refused.value)
    assert "state_dict()" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("value", "inside", "says", "hint"),
    [
        ({"a": LINEAR, "b": LINEAR.copy()}, None, "2 state_dicts", "file::a  or  file::b"),
        ({f"m{i}": {"x": torch.ones(1)} for i in range(9)}, None, "9 state_dicts", "or 4 more"),
        ({"model": LINEAR}, "ema", "holds no state_dict 'ema'", "file::model"),
        (LINEAR, "model", "holds no state_dict 'model'", "name one: file"),
        ({"a.b": LINEAR, "a": {"b": LINEAR.copy()}}, None, "have the name 'a.b'", None),
        ({"a": LINEAR, "x": torch.ones(1)}, "x", "holds no state_dict 'x'", "name one: file::a"),
        ({"a": [LINEAR]}, "a.0", "holds no state_dict 'a.0'", "name one: file::a"),
        ([{"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}], None, "the same path as text", None),
        ({"a": [{(b"x" * 2000,): torch.ones(1)}]}, None, "too many characters", None),
        (torch.ones(1), None, "a single tensor, not a state_dict", "give it a key"),
        (3, None, "a torch file, which holds no tensors", None),
        ({"model": {}, "epoch": 3}, None, "a torch file, which holds no tensors", None),
        (
            {"state": {}, "param_groups": []},
            None,
            "the state of an optimizer, which holds no tensors",
            "name the file that holds the weights",
        ),
    ],
    ids=[
        *("two", "nine", "none such", "root", "twice", "a tensor", "below a list"),
        *("same paths", "long key", "tensor", "number", "empty", "optimizer"),
    ],
)
def test_choice_that_cannot_be_made_is_refused(
    value: object, inside: str | None, says: str, hint: str | None
) -> None:
    with pytest.raises(FormatError) as refused:
        opened(saved(value), inside)
    assert says in str(refused.value)
    assert (hint is None) if refused.value.hint is None else (hint in refused.value.hint)


TYPED = [
    (1, "1 (int)"),
    ((1, "a"), "(1, 'a') (tuple)"),
    (b"a", "b'a' (bytes)"),
    (None, "None (NoneType)"),
    (1.5, "1.5 (float)"),
    (True, "True (bool)"),
    (2**70, f"{2**70} (int)"),
    ("", ""),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("key", "shown"), TYPED, ids=[repr(key) for key, _ in TYPED])
def test_fault_16_keys_that_are_no_text_are_shown_typed(
    key: object, shown: str, protocol: int
) -> None:
    data = saved({"a": torch.ones(1), key: torch.zeros(1)}, pickle_protocol=protocol)
    assert contents(opened(data)) == expected({"a": torch.ones(1), shown: torch.zeros(1)})
    assert renamed(data, {}) == data
    assert list(contents(opened(renamed(data, {"a": "b"})))) == ["b", shown]


def test_fault_16_keys_that_look_the_same_do_not() -> None:
    value = {1: torch.ones(1), "1": torch.ones(2), "1 (int)": torch.ones(3)}
    assert {key: shape for key, (_, shape, _) in contents(opened(saved(value))).items()} == {
        "1 (int) (int)": (1,),
        "1": (2,),
        "1 (int)": (3,),
    }


@pytest.mark.parametrize(
    ("value", "key"),
    [({"a": torch.ones(1), 1: torch.ones(1)}, "1 (int)"), ([{"a": torch.ones(1)}], "0.a")],
    ids=["int", "path"],
)
def test_fault_16_key_that_is_no_text_keeps_its_name(value: object, key: str) -> None:
    with pytest.raises(FormatError, match="is not a text key in this file"):
        renamed(saved(value), {key: "b"})


def test_fault_16_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(FormatError, match=r"file: the key .* is not valid Unicode"):
        opened(saved({"a": torch.ones(1), "\ud800": torch.ones(1)}))


def test_fault_16_key_that_cannot_be_shown_is_refused() -> None:
    value = {"a": torch.ones(1), (torch.float32,): torch.ones(1)}
    with pytest.raises(FormatError, match="a key that is not a plain value"):
        opened(saved(value))


TRAINERS_VALUES = [
    (np.float64(0.5), 0.5),
    (np.int64(-4), -4),
    (np.float16(2), 2.0),
    (np.bool_(True), True),
    (np.float32("nan"), "nan"),
    (np.array([[1.0, 2.0]]), "a numpy array of float64, 1 2"),
    (np.array(3), "a numpy array of int64, a scalar"),
    (np.str_("abc"), "abc"),
    (argparse.Namespace(lr=0.1, out=PurePosixPath("/a/b")), {"lr": 0.1, "out": "/a/b"}),
    (PurePosixPath("a/b"), "a/b"),
    (defaultdict(list, {"x": [1]}), {"x": [1]}),
    (datetime.datetime(2026, 11, 25, 1, 2, 3), "2026-11-25T01:02:03"),
    (datetime.datetime(2026, 11, 25, 1, 2, 3, 4000), "2026-11-25T01:02:03.004000"),
    (datetime.date(2026, 11, 25), "2026-11-25"),
    (datetime.timedelta(1, 2, 3), "datetime.timedelta(1, 2, 3)"),
]


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(("value", "shown"), TRAINERS_VALUES, ids=lambda value: repr(value)[:30])
def test_what_trainers_put_beside_the_tensors_is_shown(
    value: object, shown: object, protocol: int
) -> None:
    data = saved({"model": LINEAR, "value": value}, pickle_protocol=protocol)
    found = opened(data).rest["value"]
    assert type(found) is type(shown)
    assert found == shown


def test_fault_08_flipped_bit_of_the_pickle_is_refused() -> None:
    data = bytearray(saved(LINEAR))
    data[data.index(b"weight")] ^= 1
    loaded(bytes(data))  # torch does not look
    with pytest.raises(FormatError, match=r"data\.pkl is damaged: its CRC-32 differs"):
        opened(bytes(data))


def test_fault_08_file_without_checksums_is_read() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(LINEAR)
    finally:
        torch.serialization.set_crc32_options(True)
    assert contents(opened(data)) == expected(LINEAR)


def test_fault_12_torchscript_contains_code() -> None:
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out)
    with pytest.raises(FormatError, match="contains code") as refused:
        opened(out.getvalue())
    assert "state_dict()" in (refused.value.hint or "")


LIES = {
    "storage shorter than it says": (hostile.tensor(of=hostile.storage("1", numel=5)), "20 bytes"),
    "storage longer than it says": (hostile.tensor(of=hostile.storage("1", numel=3)), "12 bytes"),
    "storage of other elements": (
        hostile.tensor(of=hostile.storage("1", kind="DoubleStorage")),
        "should have 32 bytes, the file holds 16",
    ),
    "no such storage": (hostile.tensor(of=hostile.storage("7")), "lacks the record data/7"),
    "storage elsewhere": (hostile.tensor(of=hostile.storage("../version")), "lacks the record"),
    "view past the end": (hostile.tensor(offset=1), "reaches to byte 20"),
    "shape past the end": (hostile.tensor(shape=[5]), "reaches to byte 20"),
    "stride past the end": (hostile.tensor(stride=[2]), "reaches to byte 28"),
    "negative offset": (hostile.tensor(offset=-1), "-1 is not a size, stride or offset"),
    "negative stride": (hostile.tensor(stride=[-1], offset=3), "-1 is not a size"),
    "negative size": (hostile.tensor(shape=[-4]), "-4 is not a size"),
    "negative storage": (hostile.tensor(of=hostile.storage(numel=-4)), "-4 is not a size"),
    "2^72 elements": (hostile.tensor([2**36, 2**36], [0, 0]), "2^63 elements or more"),
    "2^72 elements and none": (hostile.tensor([0, 2**36, 2**36], [0, 0, 0]), "2^63 elements"),
    "size of 65 bits": (hostile.tensor([2**65], [0]), "is not a size"),
    "more strides than sizes": (hostile.tensor(stride=[1, 1]), "1 dimensions with 2 strides"),
    "sizes are no tuple": (
        hostile.call("torch._utils", "_rebuild_tensor_v2", hostile.storage(), *[b"K\0"] * 3),
        "expected a tuple of numbers",
    ),
    "too few arguments": (
        hostile.call("torch._utils", "_rebuild_tensor_v2", hostile.storage()),
        "not a tensor as torch describes it",
    ),
    "not a storage": (hostile.tensor(of=b"N"), "not a storage"),
    "storage of a dict": (hostile.tensor(of=b"}Q"), "not a storage"),
    "storage of no known kind": (
        hostile.tensor(of=hostile.storage(kind="Size")),
        "a storage of kind torch.Size",
    ),
    "quantised storage": (
        hostile.tensor(of=hostile.storage(kind="QInt8Storage")),
        "a storage of kind torch.QInt8Storage",
    ),
    "size of text": (
        hostile.tensor(offset=0, of=hostile.storage(numel=4)[:-2] + b"NtQ"), "a view of a storage"
    ),
    "conjugated": (
        hostile.tensor(more=b"}" + hostile.text("conj") + b"\x88s"),
        "'conj' bit is set",
    ),
    "dtype without whole bytes": (
        hostile.call(
            "torch._utils",
            "_rebuild_tensor_v3",
            hostile.storage("1", numel=16, kind="UntypedStorage", module="torch.storage"),
            *[hostile.number(0), hostile.tuple_of(hostile.number(4))],
            *[hostile.tuple_of(hostile.number(1)), b"\x89", b"}"],
            hostile.global_("torch", "uint4"),
        ),
        "ckpt cannot read dtype uint4 yet",
    ),
    "metadata of text": (hostile.tensor(more=hostile.text("x")), "bit is set"),
    "parameter of nothing": (
        hostile.call("torch._utils", "_rebuild_parameter", b"N", b"\x88", b"}"),
        "a tensor made of torch._utils._rebuild_parameter",
    ),
    "parameter of parameters": (
        hostile.call("torch._utils", "_rebuild_parameter",
            hostile.call("torch._utils", "_rebuild_parameter",
                hostile.call("torch._utils", "_rebuild_parameter",
                    hostile.call("torch._utils", "_rebuild_parameter", hostile.tensor())))),
        "a tensor made of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_fault_13_geometry_that_lies_is_refused(name: str) -> None:
    tensor, says = LIES[name]
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.state_dict(tensor), {"0": bytes(16), "1": bytes(16)}))
    assert says in str(refused.value)
    assert "value.0" in str(refused.value) or "lacks the record" in says


def test_fault_13_lies_outside_the_state_dict_are_refused_too() -> None:
    pickle = hostile.state_dict(hostile.LIST + hostile.tensor(offset=1) + hostile.APPEND)
    with pytest.raises(FormatError, match=r"value\.0\.0: reaches to byte 20"):
        opened(torch_file(pickle, {"0": bytes(16)}))


@pytest.mark.parametrize("place", ["state_dict", "beside it"])
def test_key_that_stands_twice_is_refused(place: str) -> None:
    twice = hostile.DICT + 2 * (hostile.text("x") + hostile.NONE + hostile.SETITEM)
    pickle = hostile.state_dict(twice)
    if place == "state_dict":
        pickle = hostile.state_dict(hostile.NONE + hostile.text("good") + hostile.NONE)
    with pytest.raises(FormatError, match="appears twice"):
        opened(torch_file(pickle, {"0": bytes(16)}))


@pytest.mark.parametrize(
    ("small", "says"),
    [
        ({"byteorder": b"big"}, "byteorder b'big', only little is read"),
        ({"byteorder": b"middle"}, "byteorder b'middle'"),
        ({"byteorder": b""}, "byteorder b''"),
        ({"byteorder": b"x" * 64}, "byteorder b'xxx"),
        ({"byteorder": b"x" * 65}, "byteorder: 65 bytes, expected a word"),
        ({"version": b"1234567890"}, "version b'1234567890' is not a number"),
        ({"version": b"three"}, "version b'three' is not a number"),
        ({"_format_version": b"\xff"}, "is not a number"),
        ({"_storage_alignment": b"junk"}, "is not a number"),
        ({"_storage_alignment": b"-64"}, "is not a number"),
        ({"_storage_alignment": b"0"}, "aligned to 0 bytes"),
        ({"_storage_alignment": b"32769"}, "aligned to 32,769 bytes"),
    ],
)
def test_fault_17_records_that_say_the_impossible_are_refused(
    small: dict[str, bytes], says: str
) -> None:
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.state_dict(), {"0": bytes(16)}, **small))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "small",
    [{"version": b"10\n"}, {"_storage_alignment": b"1"}, {"_storage_alignment": b"32768"}],
    ids=str,
)
def test_records_at_the_ends_of_their_ranges_are_read(small: dict[str, bytes]) -> None:
    data = torch_file(hostile.state_dict(), {"0": bytes(range(16))}, **small)
    new = renamed(data, {"good": "better"})
    assert contents(opened(new)) == {"better": ("float32", (4,), bytes(range(16)))}
    assert list(loaded(new)) == ["better"]
    alignment = int(small.get("_storage_alignment", b"64"))
    assert opened(new).entries[0].position % alignment == 0


def test_old_file_without_small_records_is_read() -> None:
    data = torch_file(hostile.state_dict(), {"0": bytes(16)})
    assert contents(opened(data)) == {"good": ("float32", (4,), bytes(16))}


@pytest.mark.parametrize(
    ("nbytes", "says"),
    [
        (2**28, "data.pkl: does not begin with a protocol"),
        (2**28 + 1, "data.pkl of 268,435,457 bytes, the limit is 268,435,456"),
    ],
)
def test_fault_04_pickle_has_256_mebibytes_at_most(nbytes: int, says: str) -> None:
    record = NewMember("archive/data.pkl", nbytes, 0, Span(0, nbytes))
    with pytest.raises(FormatError, match=says):
        open_checkpoint(LaidOut(Zeros(b""), lay_out_archive([record])))


def test_fault_05_pickle_has_a_million_opcodes_and_a_hundred_for_each_record() -> None:
    pickle = hostile.PROTO2 + (hostile.NONE + hostile.POP) * 501_000 + hostile.DICT + hostile.STOP
    with pytest.raises(FormatError, match="over 1,000,300 opcodes"):
        opened(torch_file(pickle))


def with_records(data: bytes, *without: str, **more: bytes) -> bytes:
    """The archive without some records, and with others."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name.removeprefix("archive/") not in without:
                new.writestr(name, old.read(name))
        for name, content in more.items():
            new.writestr(f"archive/{name}", content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("constants.pkl", "a TorchScript archive"),
        ("code/a.py", "a TorchScript archive"),
        ("archive_format", "a torch.export archive"),
    ],
)
def test_fault_12_record_of_a_program_is_enough(record: str, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        opened(with_records(saved(LINEAR), **{record: b"x"}))


def test_container_tells_who_wrote_it_and_what_it_holds() -> None:
    data = saved(LINEAR)
    checkpoint = opened(data)
    assert checkpoint.written_by == "torch.save of torch 2.1 or newer"
    old = with_records(data, "byteorder")
    assert opened(old).written_by == "torch.save of torch 1.6 to 2.0"
    assert checkpoint.storage_names() == ["0", "1"]  # type: ignore[attr-defined]
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = [(it.filename, it.file_size, it.CRC) for it in archive.infolist()]
    assert [(it.what, it.span.nbytes, it.crc32) for it in checkpoint.checksums] == members


def test_number_of_nine_digits_is_read() -> None:
    small = {"version": b"123456789"}
    assert contents(opened(torch_file(hostile.state_dict(), {"0": bytes(16)}, **small)))


@pytest.mark.parametrize(
    ("name", "after", "found"),
    [
        ("a/b", b"", True), ("a" * 299 + "/", b"", True), ("a" * 300, b"/", False),
        ("/", b"", True), ("a", b"/", False), ("", b"/", False),
    ],
    ids=range(6),
)  # fmt: skip
def test_archive_is_one_of_torch_if_its_first_name_has_a_folder(
    name: str, after: bytes, found: bool
) -> None:
    head = struct.pack("<4s22xHH", b"PK\3\4", len(name), 0) + name.encode() + after
    assert recognises(head) is found
    assert not recognises(b"PK\1\2" + head[4:])
