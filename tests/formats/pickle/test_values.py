"""Values read from the calls that would make them; numpy and Python make them as the oracle."""

import datetime
import pickle
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest

from ckpt.formats.pickle.describe import describe
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque, Persistent
from ckpt.formats.pickle.reader import read_pickle
from ckpt.formats.pickle.values import digest_of, value_of


def read(value: object, protocol: int = 2) -> object:
    """What is read of a value's pickle."""
    data = pickle.dumps([value], protocol)
    root = read_pickle(data, name="p", opcode_limit=len(data)).root
    assert isinstance(root, list)
    return value_of(root[0]) if isinstance(root[0], Call) else root[0]


class Stored:
    """A number or text of numpy as it was pickled on a machine of either byte order."""

    def __init__(self, dtype: np.dtype[Any], data: bytes) -> None:
        self.given = dtype, data

    def __reduce__(self) -> Any:
        return np.float64(0).__reduce__()[0], self.given  # type: ignore[index]


NUMBERS = [np.dtype(kind) for kind in "?bhiqBHIQefd"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_number_of_numpy_is_read_in_either_byte_order(dtype: np.dtype[Any], order: str) -> None:
    for number in (0, 1) if dtype.kind == "b" else (0, 100):
        held = np.array(number, dtype).astype(dtype.newbyteorder(order))
        stored = Stored(held.dtype, held.tobytes())
        theirs = pickle.loads(pickle.dumps(stored)).item()  # noqa: S301 - made above
        assert theirs == number
        found = read(stored)
        assert (type(found), found) == (type(theirs), theirs)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("text", ["a", "äöü", "\U0001f600 x"])
def test_text_of_numpy_is_read_in_either_byte_order(text: str, order: str) -> None:
    held = np.array(text).astype(f"{order}U{len(text) + 2}")
    stored = Stored(held.dtype, held.tobytes())
    assert pickle.loads(pickle.dumps(stored)) == text  # noqa: S301 - made above
    assert read(stored) == text


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        (np.dtype("f8"), bytes(7)), (np.dtype("f8"), bytes(9)), (np.dtype("?"), b""),
        (np.dtype("U2"), bytes(4)), (np.dtype("U2"), bytes(9)), (np.dtype("c16"), bytes(16)),
        (np.dtype("S3"), b"abc"),
    ],
    ids=str,
)  # fmt: skip
def test_number_of_other_bytes_than_its_kind_is_named_alone(
    dtype: np.dtype[Any], data: bytes
) -> None:
    found = read(Stored(dtype, data))
    assert isinstance(found, Call)
    assert found.function.endswith(".multiarray.scalar")


ARRAYS = [
    (np.zeros((2, 0, 3), "f4"), "a numpy array of float32, 2 0 3"),
    (np.zeros(3, ">u2"), "a numpy array of uint16, 3"),
    (np.zeros((), "?"), "a numpy array of bool, a scalar"),
    (np.zeros(1, "U5"), "a numpy array of text, 1"),
    (np.zeros(1, "i1"), "a numpy array of int8, 1"),
]


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(("array", "shown"), ARRAYS, ids=[shown for _, shown in ARRAYS])
def test_array_of_numpy_is_named(array: Any, shown: str, protocol: int) -> None:
    assert read(array, protocol) == shown
    complex_ = read(array.astype("c8") if array.dtype.kind != "U" else np.zeros(1, "c8"), protocol)
    assert isinstance(complex_, Call)


def test_path_is_read_up_to_a_thousand_characters() -> None:
    for path in (
        *(PurePosixPath(text) for text in (".", "/", "a", "a/b", "/a/b", "//a/b")),
        *(PureWindowsPath(text) for text in ("C:/", "C:/data/run", "data/run", "//host/share/a")),
    ):
        found = read(path)
        assert type(path)(str(found)) == path
    most = PurePosixPath("x" * 500, "y" * 500)
    assert read(most) == str(most)
    more = read(PurePosixPath("x" * 500, "y" * 501))
    assert isinstance(more, Call)
    assert isinstance(value_of(Call("pathlib.PosixPath", ("a", 1))), Call)


WHEN = datetime.datetime(987, 6, 5, 4, 3, 2, 10)
TIMES: list[Any] = [
    *(WHEN, WHEN.replace(microsecond=0), WHEN.replace(microsecond=999_999)),
    *(WHEN.replace(microsecond=65_536), WHEN.replace(microsecond=256), datetime.datetime.max),
    *(WHEN.date(), datetime.date.max, datetime.date.min),
]


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize("protocol", [2, 4])
def test_time_is_shown_as_python_shows_it(time: Any, protocol: int) -> None:
    assert read(time, protocol) == time.isoformat()


def test_time_in_another_form_is_named_alone() -> None:
    assert isinstance(read(WHEN.replace(tzinfo=datetime.UTC)), Call)
    for name, size in (("datetime", 10), ("date", 4)):
        for data in (bytes(size - 1), bytes(size + 1), None, "x"):
            call = Call(f"datetime.{name}", (data,))
            assert value_of(call) is call
        assert isinstance(value_of(Call(f"datetime.{name}", (bytes(size),))), str)


def test_namespace_has_attributes_alone() -> None:
    state = DictNode([("a", 1)])
    assert value_of(Call("argparse.Namespace", (), state)) is state
    for other in (Call("argparse.Namespace", (1,), state), Call("argparse.Namespace", (), [1])):
        assert value_of(other) is other


def test_infinite_number_is_text_in_json() -> None:
    assert describe([np.inf, -np.inf, 1.5, 2**70]) == ["inf", "-inf", 1.5, 2**70]


NODES: list[object] = [
    *(None, True, 1, 1.0, "1", b"1", "None", "int 1", [], (), [[]], ([],), [()], [1, 2], [2, 1]),
    *([[1], 2], [[1, 2]], [1, [2]], "", b"", 1j),
    *(DictNode([]), DictNode([], ordered=True), DictNode([("a", 1)]), DictNode([("a", 2)])),
    *(DictNode([("b", 1)]), DictNode([], ordered=True, state=1), DictNode([(1, "a")])),
    *(Call("f", ()), Call("g", ()), Call("f", (1,)), Call("f", (), 1), Call("f", (1, 1))),
    *(Opaque("f", 0), Opaque("g", 0), Opaque("f", 0, [1]), Opaque("f", 0, [], 1), Global("f")),
]


def test_digest_tells_all_kinds_of_values_apart() -> None:
    found = [digest_of(node, [100]) for node in NODES]
    assert None not in found
    assert len({*found}) == len(NODES)
    assert all(str(digest).startswith("sha256:") and len(str(digest)) == 71 for digest in found)
    # Protocol 2 writes bytes as an encoding of text; where an object is named decides nothing.
    assert digest_of(Call("_codecs.encode", ("1", "latin1")), [9]) == digest_of(b"1", [9])
    assert digest_of(Opaque("f", 7), [9]) == digest_of(Opaque("f", 0), [9])
    assert digest_of([Persistent(("storage",))], [9]) is None


def test_digest_counts_what_it_hashes() -> None:
    """Each value once as a part and once by itself, and what is left is for the next one."""
    budget = [30]
    assert digest_of([1, [2, 3]], budget) is not None
    assert budget == [30 - 9]
    assert digest_of(DictNode([("a", 1)]), budget) is not None
    assert budget == [30 - 9 - 7]
    assert digest_of([0] * 7, budget) is None
