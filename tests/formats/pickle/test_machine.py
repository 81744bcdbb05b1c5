"""Each opcode does what it does in Python's pickle; each limit holds to the number."""

import pickle
import pickletools
import re
import struct
from itertools import pairwise

import pytest

from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.pickle.nodes import Call, DictNode, Number, Opaque
from ckpt.formats.pickle.reader import (
    ParsedPickle,
    read_first_pickle,
    read_numbered,
    read_pickle,
)
from ckpt.formats.pickle.stack import TruncatedError
from tests.formats import hostile
from tests.formats.hostile import call, get, global_, number, put, text, tuple_of

PROTO5 = b"\x80\x05"
MANY = 1_000_000  # opcodes, more than any pickle here has
TWO = struct.pack("<Q", 2)
# Every opcode that makes a plain value; the first one fills the first slots of the memo.
SAME = {
    "MEMOIZE": b"K\x07\x94K\x08\x9400h\x01",
    "BININT": b"J\xfe\xff\xff\xff",
    "BININT1": b"K\xff",
    "BININT2": b"M\xfe\xff",
    "LONG1": b"\x8a\x02\x00\x80",
    "LONG1 of no bytes": b"\x8a\x00",
    "LONG1 of 64 bytes": b"\x8a\x40" + bytes(63) + b"\x01",
    "LONG4": b"\x8b\x02\x00\x00\x00\x00\x80",
    "BINFLOAT": b"G" + struct.pack(">d", 1.5),
    "SHORT_BINSTRING": b"U\x02ab",
    "BINSTRING": b"T\x02\x00\x00\x00ab",
    "SHORT_BINUNICODE": b"\x8c\x02ab",
    "BINUNICODE": b"X\x02\x00\x00\x00ab",
    "BINUNICODE8": b"\x8d" + TWO + b"ab",
    "SHORT_BINBYTES": b"C\x02ab",
    "BINBYTES": b"B\x02\x00\x00\x00ab",
    "BINBYTES8": b"\x8e" + TWO + b"ab",
    "BYTEARRAY8": b"\x96" + TWO + b"ab",
    "NONE": b"N",
    "NEWTRUE": b"\x88",
    "NEWFALSE": b"\x89",
    "EMPTY_TUPLE": b")",
    "TUPLE1": b"K\x01\x85",
    "TUPLE2": b"K\x01K\x02\x86",
    "TUPLE3": b"K\x01K\x02K\x03\x87",
    "TUPLE": b"(K\x01K\x02K\x03K\x04t",
    "EMPTY_LIST": b"]",
    "LIST": b"(K\x01K\x02l",
    "APPEND": b"]K\x01a",
    "APPENDS": b"](K\x01K\x02e",
    "EMPTY_DICT": b"}",
    "SETITEM": b"}K\x01K\x02s",
    "SETITEMS": b"}(K\x01K\x02K\x03K\x04u",
    "EMPTY_SET, ADDITEMS": b"\x8f(K\x01K\x02\x90",
    "FROZENSET": b"(K\x01K\x02\x91",
    "POP": b"K\x01K\x020",
    "POP_MARK": b"K\x01(K\x02K\x031",
    "BINPUT, BINGET": b"K\x07q\x030h\x03",
    "LONG_BINPUT, LONG_BINGET": b"K\x07r\x03\x00\x00\x000j\x03\x00\x00\x00",
}
FRAMES = hostile.frame(b"K\x01\x85") + b"0" + hostile.frame(b"K\x02")
CALL = global_("collections", "OrderedDict") + b")R"
KNOWN = {*b"\x80\x95c\x93R\x81\x92bQ."} | {
    ord(opcode.code) for code in SAME.values() for opcode, _, _ in pickletools.genops(code + b".")
}


def read(code: bytes, *, opaque: bool = False, opcode_limit: int = MANY) -> ParsedPickle:
    data = PROTO5 + code + hostile.STOP
    return read_pickle(data, name="p", opcode_limit=opcode_limit, opaque=opaque)


def value_of(node: object) -> object:
    match node:
        case DictNode(items=items):
            return dict(items)
        case Call(function="builtins.set", arguments=(list() as items,)):
            return set(items)
        case Call(function="builtins.frozenset", arguments=(list() as items,)):
            return frozenset(items)
    return node


@pytest.mark.parametrize("code", [*SAME.values(), FRAMES], ids=[*SAME, "FRAME"])
def test_opcode_does_what_it_does_in_python(code: bytes) -> None:
    data = PROTO5 + code + hostile.STOP
    found = read(code)
    assert value_of(found.root) == pickle.loads(data)  # noqa: S301 - made above
    assert found.nbytes == len(data)
    assert found.opcodes == len(list(pickletools.genops(data)))
    read(code, opcode_limit=found.opcodes)
    with pytest.raises(FormatError, match=f"over {found.opcodes - 1} opcodes"):
        read(code, opcode_limit=found.opcodes - 1)


CALLS = {
    "REDUCE": CALL,
    "STACK_GLOBAL": text("collections") + text("OrderedDict") + b"\x93)R",
    "NEWOBJ": global_("collections", "OrderedDict") + b")\x81",
    "BUILD": CALL + b"}" + text("x") + b"Nsb",
}


@pytest.mark.parametrize("name", [*SAME, *CALLS])
def test_opcode_leaves_the_values_below_alone(name: str) -> None:
    data = PROTO5 + b"K\x01K\x02" + (SAME | CALLS)[name] + b"\x87" + hostile.STOP
    root = read(data[2:-1]).root
    assert isinstance(root, tuple)
    assert (*root[:2], value_of(root[2])) == pickle.loads(data)  # noqa: S301 - made above


def test_opaque_objects_and_references_leave_the_values_below_alone() -> None:
    foreign = global_("os", "system")
    for code in (foreign + b")R", foreign + b")\x81", foreign + b")}\x92"):
        root = read(b"K\x01K\x02" + code + b"\x87", opaque=True).root
        assert isinstance(root, tuple)
        assert root[:2] == (1, 2)
        assert isinstance(root[2], Opaque)
    found = read(b"K\x01K\x02" + hostile.storage() + b"\x87")
    assert isinstance(found.root, tuple)
    assert found.root[:2] == (1, 2)
    assert found.persistents == [found.root[2]]


@pytest.mark.parametrize("code", sorted({*range(256)} - KNOWN))
def test_other_opcode_is_refused(code: int) -> None:
    says = f"p: opcode {bytes([code])!r} at offset 2, which torch.save does not write"
    with pytest.raises(FormatError, match=f"^{re.escape(says)}$"):
        read(bytes([code]))


def test_beginning_of_a_pickle_is_truncated_in_the_opcode_that_is_cut() -> None:
    """A legacy file is read a part at a time, and read on where a pickle is truncated."""
    data = PROTO5 + b"".join(code + b"0" for code in [*SAME.values(), CALL, CALL]) + b"N."
    begins = [at for _, _, at in pickletools.genops(data) if at is not None]
    for end in range(1, len(data)):
        at = max(begin for begin in begins if begin <= end)
        with pytest.raises(TruncatedError, match=f"^p: truncated at offset {at:,}$"):
            read_first_pickle(data[:end], name="p", opcode_limit=MANY)
    assert read_first_pickle(data + b"more", name="p", opcode_limit=MANY).nbytes == len(data)


def test_beginning_of_a_frame_is_truncated_at_the_frame() -> None:
    data = PROTO5 + b"N0" + FRAMES + hostile.STOP
    for end in range(4, data.rindex(b"0\x95")):
        with pytest.raises(TruncatedError, match=r"^p: truncated at offset 4$"):
            read_first_pickle(data[:end], name="p", opcode_limit=MANY)


# Opcodes, and what the refusal says; the offset is that of the last one.
REFUSED = {
    "nothing": (b"", "leaves 0 values, expected one"),
    "a mark": (b"(N", "leaves 2 values, expected one"),
    "empty stack": (b"0N", "damaged at offset 2: pop from empty list"),
    "integer of 65 bytes": (b"\x8a\x41" + bytes(65), "an integer of 65 bytes"),
    "length below zero": (b"\x8b\xff\xff\xff\xff", "an argument of -1 bytes"),
    "second protocol": (b"N" + PROTO5, "pickle protocol 5, expected 2 to 5"),
    "three of two": (b"NN\x87", "found 2 values, expected 3"),
    "opcode across a frame's end": (
        hostile.frame(b"K", 1) + b"\x01", "an opcode crosses its frame's end at offset 12",
    ),
    "frame in a frame": (hostile.frame(hostile.frame(b"N")), "a frame inside a frame at offset 11"),
    "module of a number": (number(1) + text("a") + b"\x93", "a global whose name is not text"),
    "name of a number": (text("a") + number(1) + b"\x93", "a global whose name is not text"),
    "empty name": (global_("m", "") + b"Nabc\n", "refused global m. at offset 2"),
    "long name": (
        global_("m", "x" * 200), f"refused global m.{'x' * 98}… at offset 2",
    ),
    "call of None": (b"N)R", "calls something other than a global at offset {at}"),
    "call without a tuple": (
        global_("torch", "Size") + b"NR", "calls something other than a global at offset {at}",
    ),
    "call of int": (
        global_("builtins", "int") + b")R", "calls builtins.int at offset {at}",
    ),
    "object of arguments": (
        global_("collections", "OrderedDict") + b"N\x85\x81",
        "makes collections.OrderedDict with arguments at offset {at}",
    ),
    "object of keywords": (
        global_("collections", "OrderedDict") + b")}\x92",
        "makes an object with keywords at offset {at}",
    ),
    "attributes of a tensor": (
        hostile.tensor() + b"}b", "sets attributes of a tensor at offset {at}, which",
    ),
    "attributes of a list": (b"]}b", "sets state on something that cannot have it"),
    "attributes twice": (CALL + b"}b}b", "sets state on something that cannot have it"),
    "attributes of a plain dict": (b"}}b", "sets state on a dict, or state that is not a dict"),
    "pair of one": (
        call("collections", "OrderedDict", b"](N\x85e"), "something other than pairs",
    ),
    "pair of three": (
        call("collections", "OrderedDict", b"](NNN\x87e"), "something other than pairs",
    ),
    "pair of text": (
        call("collections", "OrderedDict", b"]" + text("ab") + b"a"), "something other than pairs",
    ),
    "Counter of a list": (
        call("collections", "Counter", b"]"), "a Counter of something other than a dict",
    ),
    "defaultdict of a dict": (
        call("collections", "defaultdict", b"N", b"}"), "a dict of another class with arguments",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_and_where(name: str) -> None:
    code, says = REFUSED[name]
    at = len(PROTO5 + code) - 1
    with pytest.raises(FormatError, match=re.escape(says.format(at=at))):
        read(code)


@pytest.mark.parametrize("data", [b"}.", b"\x88.", b"\x95.", b""], ids=repr)
def test_pickle_without_a_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="does not begin with a protocol"):
        read_pickle(data, name="p", opcode_limit=MANY)


@pytest.mark.parametrize("kind", ["None", "list", "int"])
def test_dict_of_another_class_takes_its_factory(kind: str) -> None:
    factory = b"N" if kind == "None" else global_("builtins", kind)
    root = read(call("collections", "defaultdict", factory) + b"K\x01K\x02s").root
    assert value_of(root) == {1: 2}


def test_opaque_object_does_not_make_a_call_of_an_odd_form_harmless() -> None:
    opaque = global_("os", "system")
    assert read(opaque + b")R", opaque=True).root is not None
    for code in (opaque + b"NR", call("collections", "OrderedDict", opaque)):
        with pytest.raises(FormatError) as refused:
            read(code, opaque=True)
        assert not isinstance(refused.value, RefusedGlobalError)


OVER = "over 1,000,000 memo entries"


@pytest.mark.parametrize(
    ("code", "fits"),
    [
        (put(999_999), True),
        (put(1_000_000), False),
        (put(999_998) + hostile.MEMOIZE, True),
        (put(999_999) + hostile.MEMOIZE, False),
        (put(999_999) + put(1_000_000), False),
    ],
    ids=["last slot", "slot beyond", "last of a row", "beyond a row", "next slot"],
)
def test_memo_has_a_million_slots(code: bytes, fits: bool) -> None:
    if fits:
        assert read(b"N" + code).root is None
        return
    with pytest.raises(FormatError, match=OVER):
        read(b"N" + code)


def test_texts_of_the_memo_have_a_limit() -> None:
    whole = text("x" * 2**20) + put(0) + b"0" + (get(0) + b"0") * 32  # 2^25 characters
    read(whole + b"N")
    with pytest.raises(FormatError, match="looks up over 33,554,432 characters"):
        read(whole + text("y") + put(1) + b"0" + get(1))


def test_dicts_are_copied_up_to_the_bytes_before_them() -> None:
    pair = tuple_of(text("k"), b"N")
    pairs = hostile.LIST + put(0) + hostile.MARK + pair * 100 + hostile.APPENDS
    made = (call("collections", "OrderedDict", get(0)) + b"0") * 20
    padding = 20 * 100 - len(PROTO5 + text("") + b"0" + pairs + made) + 1
    read(text("x" * padding) + b"0" + pairs + made)
    with pytest.raises(FormatError, match="copies its own parts too often at offset 1,998"):
        read(text("x" * (padding - 1)) + b"0" + pairs + made)


@pytest.mark.parametrize("name", ["BININT", "BININT1", "BININT2", "LONG1", "LONG4"])
def test_number_knows_its_place(name: str) -> None:
    data = PROTO5 + SAME[name] + hostile.STOP
    root = read_numbered(data, name="p")
    assert isinstance(root, Number)
    assert root == pickle.loads(data)  # noqa: S301 - made above
    assert data[root.start : root.end] == SAME[name]


INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4"}


def test_numbers_know_their_places() -> None:
    values = [0, 255, 256, 65_535, 65_536, -1, 2**40, -(2**70), True, 7]
    data = pickle.dumps(values, 2)
    opcodes = [*pickletools.genops(data)]
    places = [
        (at, end)
        for (opcode, _, at), (_, _, end) in pairwise(opcodes)
        if opcode.name in INTEGERS and at is not None
    ]
    root = read_numbered(data, name="p")
    assert isinstance(root, list)
    assert root == values
    assert [(it.start, it.end) for it in root if isinstance(it, Number)] == places
    assert len(places) == len(values) - 1
