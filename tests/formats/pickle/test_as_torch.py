"""A pickle that torch would read in another way is refused; torch itself is the oracle."""

from collections import Counter
from typing import Any

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.pickle.globals import SETTABLE
from tests.formats import hostile
from tests.formats.hostile import call, global_, number, storage, tensor, text, tuple_of
from tests.formats.support import contents, expected, loaded, opened, renamed, saved, torch_file

SECOND = tensor(of=storage("1"))
ARGUMENTS = (storage(), number(0), tuple_of(number(4)), tuple_of(number(1)), b"\x89", b"}")
V2 = global_("torch._utils", "_rebuild_tensor_v2")


def state_of(key: str) -> bytes:
    """Attributes: a dict with one tensor."""
    return hostile.DICT + text(key) + SECOND + hostile.SETITEM


def from_type(state: bytes) -> bytes:
    kind = global_("torch", "Tensor")
    return call("torch._tensor", "_rebuild_from_type_v2", V2, kind, tuple_of(*ARGUMENTS), state)


GROWING = hostile.LIST + number(4) + hostile.APPEND + hostile.put(0)
ONE = hostile.LIST + number(1) + hostile.APPEND
CASES: dict[str, tuple[list[bytes], str]] = {
    "two dtypes": ([tensor(of=storage(kind="IntStorage"))], "two dtypes or sizes"),
    "dtype of a storage that is dropped": (
        [storage("1", kind="IntStorage") + hostile.POP + SECOND], "two dtypes or sizes",
    ),
    "build on a tensor": (
        [tensor() + tuple_of(storage("1"), *ARGUMENTS[1:4]) + hostile.BUILD],
        "sets attributes of a tensor",
    ),
    "build on a parameter": (
        [call("torch._utils", "_rebuild_parameter", tensor(), b"\x88", b"}")
         + tuple_of(SECOND, b"\x88", b"}", b"\x88", b"}") + hostile.BUILD],
        "sets attributes of a tensor",
    ),
    "parameter whose state sets data": (
        [call("torch._utils", "_rebuild_parameter_with_state", tensor(), b"\x88", b"}",
              state_of("data"))],
        "its attribute 'data' would change the tensor",
    ),
    "tensor whose state sets data": (
        [from_type(state_of("data"))], "its attribute 'data' would change the tensor"
    ),
    "slots that set data": (
        [from_type(tuple_of(hostile.NONE, state_of("data")))], "its attribute 'data' would change"
    ),
    "sizes that grow": (
        [call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), GROWING, ONE,
              b"\x89", b"}"),
         hostile.get(0) + number(0) + hostile.APPEND],
        "expected a tuple of numbers",
    ),
    "location meta": (
        [tensor(of=tuple_of(text("storage"), global_("torch", "FloatStorage"), text("1"),
                            text("meta"), number(4)) + hostile.BINPERSID)],
        "on the device meta",
    ),
    "Parameter by NEWOBJ": (
        [global_("torch.nn.parameter", "Parameter") + tuple_of(SECOND, b"\x89") + b"\x81"],
        "a Parameter as torch 0.3 saved it",
    ),
    "tensor of numbers": (
        [call("torch", "Tensor", tuple_of(number(3)))], "a tensor made of numbers"
    ),
    "OrderedDict by NEWOBJ": (
        [global_("collections", "OrderedDict")
         + tuple_of(hostile.LIST + tuple_of(text("x"), tensor()) + hostile.APPEND) + b"\x81"],
        "makes collections.OrderedDict with arguments",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fault_13_pickle_that_torch_reads_otherwise_is_refused(name: str) -> None:
    values, says = CASES[name]
    floats = {"0": bytes(range(16)), "1": bytes(range(16, 32))}
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.state_dict(*values), floats))
    assert says in str(refused.value)
    assert refused.value.exit_code == 3


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
