"""A pickle that torch would read in another way is refused; torch itself is the oracle."""

import datetime
import struct
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.pickle.globals import SETTABLE
from tests.formats import hostile
from tests.formats.hostile import call, global_, number, storage, tensor, text, tuple_of
from tests.formats.support import contents, expected, loaded, opened, renamed, saved, torch_file

BYTES = {"0": bytes(range(16)), "1": bytes(range(16, 32))}
FLOATS = {
    key: torch.frombuffer(bytearray(data), dtype=torch.float32) for key, data in BYTES.items()
}
SECOND = tensor(of=storage("1"))
ARGUMENTS = (storage(), number(0), tuple_of(number(4)), tuple_of(number(1)), b"\x89", b"}")
V2 = global_("torch._utils", "_rebuild_tensor_v2")
SAFE = [np.dtype, np._core.multiarray.scalar, *(type(np.dtype(kind)) for kind in "dU")]  # type: ignore[attr-defined]


def dict_of(*items: bytes) -> bytes:
    """A dict of keys and values in turn."""
    return hostile.DICT + hostile.MARK + b"".join(items) + hostile.SETITEMS


def list_of(*items: bytes) -> bytes:
    return hostile.LIST + hostile.MARK + b"".join(items) + hostile.APPENDS


def state_of(key: str) -> bytes:
    """Attributes: a dict with one tensor."""
    return dict_of(text(key), SECOND)


def from_type(state: bytes) -> bytes:
    kind = global_("torch", "Tensor")
    return call("torch._tensor", "_rebuild_from_type_v2", V2, kind, tuple_of(*ARGUMENTS), state)


def parameter(state: bytes) -> bytes:
    return call("torch._utils", "_rebuild_parameter_with_state", tensor(), b"\x89", b"}", state)


def encoded(data: bytes) -> bytes:
    return call("_codecs", "encode", text(data.decode("latin-1")), text("latin1"))


def numpy_scalar(kind: str, data: bytes, *lengths: int) -> bytes:
    state = [number(3), text("<"), *3 * [hostile.NONE], *map(number, lengths or (-1, -1, 0))]
    dtype = call("numpy", "dtype", text(kind), b"\x89", b"\x88") + tuple_of(*state) + hostile.BUILD
    return call("numpy._core.multiarray", "scalar", dtype, encoded(data))


def twice(one: bytes, other: bytes) -> bytes:
    """A dict with a tensor and a number under keys that are equal."""
    return dict_of(one, SECOND, other, number(5))


GROWING = hostile.LIST + number(4) + hostile.APPEND + hostile.put(0)
ONE = hostile.LIST + number(1) + hostile.APPEND
FLOAT_ONE = b"G" + struct.pack(">d", 1)
EMPTY = hostile.LIST + hostile.put(0)
LATE = hostile.get(0) + SECOND + hostile.APPEND
NOT_PLAIN = "a key that is not a plain value"
PATH = "on the path to a tensor"
# Values, words of the refusal, and what the file seems to hold: torch finds something else.
Seeming = dict[str, str | torch.Tensor]
BOTH: Seeming = {"good": "0", "value.0": "0"}
BOTH_SECOND: Seeming = {"good": "0", "value.0": "1"}
KEYED: Seeming = {"good": "0", "value.0.1": "1"}
CASES: dict[str, tuple[list[bytes], str, Seeming]] = {
    "two dtypes": (
        [tensor(of=storage(kind="IntStorage"))], "two dtypes or sizes",
        {"good": "0", "value.0": FLOATS["0"].view(torch.int32)},
    ),
    "dtype of a storage that is dropped": (
        [storage("1", kind="IntStorage") + hostile.POP + SECOND],
        "two dtypes or sizes", BOTH_SECOND,
    ),
    "build on a tensor": (
        [tensor() + tuple_of(storage("1"), *ARGUMENTS[1:4]) + hostile.BUILD],
        "sets attributes of a tensor", BOTH,
    ),
    "build on a tensor of the memo": (
        [tensor() + hostile.put(0),
         hostile.get(0) + tuple_of(storage("1"), *ARGUMENTS[1:4]) + hostile.BUILD],
        "sets attributes of a tensor", {**BOTH, "value.1": "0"},
    ),
    "build on a parameter": (
        [call("torch._utils", "_rebuild_parameter", tensor(), b"\x88", b"}")
         + tuple_of(SECOND, b"\x88", b"}", b"\x88", b"}") + hostile.BUILD],
        "sets attributes of a tensor", BOTH,
    ),
    "parameter whose state sets data": (
        [parameter(state_of("data"))], "its attribute 'data' would change the tensor", BOTH,
    ),
    "tensor whose state sets data": (
        [from_type(state_of("data"))], "its attribute 'data' would change the tensor", BOTH,
    ),
    "slots that set data": (
        [from_type(tuple_of(hostile.NONE, state_of("data")))],
        "its attribute 'data' would change", BOTH,
    ),
    "first half of a state that sets real": (
        [parameter(tuple_of(state_of("real"), hostile.NONE))],
        "its attribute 'real' would change", BOTH,
    ),
    "attributes of a tensor that nothing shows": (
        [call("torch._utils", "_rebuild_tensor_v2", *ARGUMENTS[:5], parameter(state_of("real")))],
        "its attribute 'real' would change", BOTH,
    ),
    "negative bit that is false": (
        [tensor(more=dict_of(text("neg"), b"\x89"))], "its 'neg' bit is set", BOTH,
    ),
    "conjugate bit that is false": (
        [tensor([2], of=storage("1", 2, "ComplexFloatStorage"),
                more=dict_of(text("conj"), b"\x89"))],
        "its 'conj' bit is set", {"good": "0", "value.0": FLOATS["1"].view(torch.complex64)},
    ),
    "sizes that grow": (
        [call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), GROWING, ONE,
              b"\x89", b"}"),
         hostile.get(0) + number(0) + hostile.APPEND],
        "expected a tuple of numbers", {"good": "0", "value.0": torch.ones(4, 0)},
    ),
    "location meta": (
        [tensor(of=tuple_of(text("storage"), global_("torch", "FloatStorage"), text("1"),
                            text("meta"), number(4)) + hostile.BINPERSID)],
        "on the device meta", BOTH_SECOND,
    ),
    "Parameter by NEWOBJ": (
        [global_("torch.nn.parameter", "Parameter") + tuple_of(SECOND, b"\x89") + b"\x81"],
        "a Parameter as torch 0.3 saved it", {"good": "0"},
    ),
    "tensor of numbers": (
        [call("torch", "Tensor", tuple_of(number(3)))], "a tensor made of numbers", {"good": "0"},
    ),
    "OrderedDict by NEWOBJ": (
        [global_("collections", "OrderedDict")
         + tuple_of(hostile.LIST + tuple_of(text("x"), tensor()) + hostile.APPEND) + b"\x81"],
        "makes collections.OrderedDict with arguments", {"good": "0", "value.0.x": "0"},
    ),
    "tensor as a key": ([dict_of(SECOND, number(1))], NOT_PLAIN, BOTH_SECOND),
    "tensor in a key": ([dict_of(tuple_of(SECOND), number(1))], NOT_PLAIN, BOTH_SECOND),
    "complex as a key": (
        [twice(number(1), call("builtins", "complex", FLOAT_ONE))], NOT_PLAIN, KEYED,
    ),
    "number of numpy as a key": (
        [twice(number(1), numpy_scalar("f8", struct.pack("<d", 1)))], "appears twice", KEYED,
    ),
    "text of numpy as a key": (
        [twice(text("1"), numpy_scalar("U1", "1".encode("utf-32-le"), 4, 4, 8))],
        "appears twice", KEYED,
    ),
    "text of numpy that is longer than its dtype as a key": (
        [twice(text("1"), numpy_scalar("U1", "1x".encode("utf-32-le"), 4, 4, 8))],
        NOT_PLAIN, KEYED,
    ),
    "text of numpy of another length as a key": (
        [twice(text("1"), numpy_scalar("U2", "1x".encode("utf-32-le"), 4, 4, 8))],
        NOT_PLAIN, KEYED,
    ),
    "number of numpy in a key": (
        [twice(tuple_of(number(1)), tuple_of(numpy_scalar("f8", struct.pack("<d", 1))))],
        "appears twice", {"good": "0", "value.0.(1,)": "1"},
    ),
    "Size as a key": (
        [twice(tuple_of(number(1)), call("torch", "Size", tuple_of(number(1))))],
        "appears twice", {"good": "0", "value.0.(1,)": "1"},
    ),
    "bytes in another encoding as a key": (
        [twice(encoded(b"k"), call("_codecs", "encode", text("k"), text("utf-8")))],
        NOT_PLAIN, {"good": "0", "value.0.b'k'": "1"},
    ),
}  # fmt: skip

# Lists of these values: all tensors in them have names.
LISTED: dict[str, tuple[list[bytes], str, Seeming]] = {
    "set of a list that grows": (
        [EMPTY, call("builtins", "set", hostile.get(0)), LATE], PATH,
        {"0.0": "1", "1.0": "1", "2.0": "1"},
    ),
    "set of one tensor twice": (
        [SECOND + hostile.put(0), call("builtins", "set", list_of(hostile.get(0), hostile.get(0)))],
        PATH, {"0": "1", "1.0": "1", "1.1": "1"},
    ),
    "Size of a tensor": (
        [call("torch", "Size", tuple_of(tensor(
            (), (), of=storage("1", 2, "LongStorage")
        )))],
        PATH, {"0.0": FLOATS["1"].view(torch.int64)[0]},
    ),
    "attribute of a tensor": ([from_type(state_of("note"))], PATH, {"0": "0", "0.note": "1"}),
    "attributes of a dict as pairs": (
        [call("collections", "OrderedDict") + list_of(tuple_of(text("k"), SECOND)) + hostile.BUILD],
        "state that is not a dict", {"0.k": "1"},
    ),
}  # fmt: skip


def torchs(data: bytes) -> dict[str, tuple[str, torch.Tensor]] | None:
    """What torch finds, by dotted paths; None if it refuses the file."""
    try:
        with torch.serialization.safe_globals(SAFE):
            value = loaded(data)
    except Exception:  # noqa: BLE001 - torch refuses by errors of any kind
        return None
    return dict(leaves(value, ()))


def leaves(value: Any, path: tuple[str, ...]) -> Any:
    """Tensors and their devices; a tensor that is negated or conjugated is resolved."""
    if isinstance(value, torch.Tensor):
        plain = torch.Tensor.detach(value).resolve_neg().resolve_conj()
        yield ".".join(path), (str(value.device), plain)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple | set):
        for number_, item in enumerate(value):
            yield from leaves(item, (*path, str(number_)))


def differs(data: bytes, seeming: Seeming) -> bool:
    """Whether torch refuses the file, or finds something else than it seems to hold."""
    found = torchs(data)
    if found is None or found.keys() != seeming.keys():
        return True
    if any(device != "cpu" for device, _ in found.values()):
        return True
    wanted = {key: FLOATS[it] if isinstance(it, str) else it for key, it in seeming.items()}
    return expected({key: it for key, (_, it) in found.items()}) != expected(wanted)


@pytest.mark.parametrize("name", [*CASES, *LISTED])
def test_fault_13_pickle_that_torch_reads_otherwise_is_refused(name: str) -> None:
    values, says, seeming = (CASES | LISTED)[name]
    listed = hostile.PROTO2 + list_of(*values) + hostile.STOP
    data = torch_file(hostile.state_dict(*values) if name in CASES else listed, BYTES)
    with pytest.raises(FormatError) as refused:
        opened(data)
    assert says in str(refused.value)
    assert refused.value.exit_code == 3
    assert differs(data, seeming)


KEYS = [
    *(np.int64(3), np.str_("cat"), (np.float64(1), "a"), torch.Size([2]), torch.device("cpu")),
    *(PurePosixPath("a/b"), datetime.date(2026, 11, 29), frozenset({1}), torch.float32, None, 0.5),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_honest_key_beside_the_tensors_is_kept(key: object, protocol: int) -> None:
    data = saved({"model": {"w": FLOATS["0"]}, "log": {key: 1}}, pickle_protocol=protocol)
    assert contents(opened(data)) == expected({"w": FLOATS["0"]})


def test_attributes_are_copied_when_they_are_set() -> None:
    """As `__dict__.update` does; the dict that they came from may change afterwards."""
    made = call("collections", "OrderedDict") + hostile.get(0) + hostile.BUILD
    values = [hostile.DICT + hostile.put(0), made, hostile.get(0) + text("k") + SECOND + b"s"]
    data = torch_file(hostile.PROTO2 + list_of(*values) + hostile.STOP, BYTES)
    (first, ordered, third) = loaded(data)
    assert (list(first), vars(ordered), first is third) == (["k"], {}, True)
    assert list(contents(opened(data))) == ["0.k", "2.k"]


@pytest.mark.filterwarnings("ignore")
def test_attribute_that_torchs_tensors_have_is_refused_or_changes_nothing() -> None:
    names = dir(torch.nn.Parameter)
    assert len(names) > 500
    refused = set()
    for name in names:
        data = torch_file(hostile.state_dict(parameter(state_of(name))), BYTES)
        try:
            ours = contents(opened(data))
        except FormatError:
            refused.add(name)
            continue
        found = torchs(data)
        assert found is None or ours == expected({key: it for key, (_, it) in found.items()}), name
    assert refused == SETTABLE & set(names)


def test_attribute_of_its_own_is_kept() -> None:
    data = torch_file(
        hostile.state_dict(from_type(state_of("note"))), {"0": bytes(range(16)), "1": bytes(16)}
    )
    assert contents(opened(data)) == expected(loaded(data))


@pytest.mark.filterwarnings("ignore")
def test_attributes_that_torch_can_set_are_known() -> None:
    settable = set()
    for kind in torch.nn.Parameter.__mro__:
        for name in (name for name, value in vars(kind).items() if hasattr(value, "__set__")):
            for value in (torch.ones(2), torch.ones(2, dtype=torch.complex64), None, True):
                one = torch.ones(2, dtype=value.dtype if isinstance(value, torch.Tensor) else None)
                try:
                    setattr(one, name, value)
                except (AttributeError, TypeError, RuntimeError):
                    continue
                settable.add(name)
    assert "data" in settable
    assert settable <= SETTABLE


def test_counter_is_a_mapping() -> None:
    value: Any = Counter({"w": torch.ones(2)})
    data = saved(value)
    assert contents(opened(data)) == expected(loaded(data)) == expected(value)
    assert list(loaded(renamed(data, {"w": "v"}))) == ["v"]
