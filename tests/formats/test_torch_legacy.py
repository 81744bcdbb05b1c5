"""Files from before torch 1.6: read as torch reads them, or refused in a line."""

import pickle
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch

from ckpt.errors import CkptError, FormatError, RefusedGlobalError
from ckpt.formats import open_checkpoint
from ckpt.formats.torch_legacy import TorchLegacyFile
from tests.formats import hostile
from tests.formats.support import Memory, contents, expected, opened, renamed, saved

WHOLE = torch.arange(12.0)
STATE = {
    "conv.weight": WHOLE.reshape(3, 4),
    "conv.bias": torch.ones(3).half(),
    "tied": WHOLE.reshape(3, 4),
    "turned": WHOLE.reshape(3, 4).t(),
    "part": WHOLE[5:9],
    "nothing": torch.zeros(0, 2),
    "scalar": torch.tensor(7),
}
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
VERSION = pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)


def legacy(value: Any, protocol: int = 2) -> bytes:
    return saved(value, _use_new_zipfile_serialization=False, pickle_protocol=protocol)


def loaded(data: bytes) -> Any:
    """What torch loads of a file made here; its safe reader takes protocol 2 alone."""
    return torch.load(BytesIO(data), weights_only=False)


def made(
    value: bytes,
    *,
    magic: bytes = MAGIC,
    version: bytes = VERSION,
    system: bytes = SYSTEM,
    keys: object = ("0",),
    storages: bytes = struct.pack("<q", 4) + bytes(range(16)),
) -> bytes:
    """A file around any pickle, or one that lies about its parts."""
    listed = list(keys) if isinstance(keys, tuple) else keys
    return b"".join([magic, version, system, value, pickle.dumps(listed, 2), storages])


def storage(numel: int = 4, key: str = "0", view: bytes = hostile.NONE) -> bytes:
    """A reference to a storage as the legacy form has it, with its view."""
    identity = [hostile.text("storage"), hostile.global_("torch", "FloatStorage")]
    identity += [hostile.text(key), hostile.text("cpu"), hostile.number(numel), view]
    return hostile.tuple_of(*identity) + hostile.BINPERSID


def state_dict(**tensors: bytes) -> bytes:
    items = b"".join(hostile.text(key) + tensor for key, tensor in tensors.items())
    return hostile.PROTO2 + hostile.DICT + hostile.MARK + items + hostile.SETITEMS + hostile.STOP


ONE = state_dict(a=hostile.tensor(of=storage()))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_those_of_torch(protocol: int) -> None:
    data = legacy(STATE, protocol)
    checkpoint = opened(data)
    assert checkpoint.format == "torch-legacy"
    assert contents(checkpoint) == expected(loaded(data)) == expected(STATE)
    first, third = checkpoint.entries[0], checkpoint.entries[2]
    assert first.span == third.span, "tied tensors share their bytes"
    assert renamed(data, {}) == data


def test_made_file_is_read_by_torch_too() -> None:
    assert contents(opened(made(ONE))) == expected(loaded(made(ONE)))


@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_loads_what_was_renamed(protocol: int) -> None:
    value = {"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}
    data = legacy(value, protocol)
    new = loaded(renamed(data, {"conv.weight": "a.much.longer.name", "part": "p"}, "model"))
    names = {"conv.weight": "a.much.longer.name", "part": "p"}
    assert expected(new["model"]) == expected({names.get(k, k): t for k, t in STATE.items()})
    assert new["epoch"] == 3
    assert new["optimizer"]["state"][0]["exp_avg"].tolist() == [1, 1]


def test_many_keys_are_found_by_reading_on() -> None:
    """The pickle is longer than what is read of it at first."""
    state = {f"layers.{number}.weight": torch.full((2,), float(number)) for number in range(2000)}
    data = legacy(state)
    source = Memory(data)
    checkpoint = open_checkpoint(source)
    assert contents(checkpoint) == expected(state)
    _, begin, end, *_ = boundaries(data)[1:]
    assert 2**16 < end - begin <= 2**18
    assert [nbytes for at, nbytes in source.reads if at == begin] == [2**16, 2**18]


def test_fault_05_memo_has_a_slot_for_each_byte_at_most() -> None:
    def with_slot(slot: int) -> bytes:
        return made(ONE[:-1] + hostile.put(slot) + hostile.STOP)

    left = len(with_slot(0)) - len(MAGIC + VERSION + SYSTEM)
    assert contents(opened(with_slot(left - 1))) == contents(opened(made(ONE)))
    with pytest.raises(FormatError, match=f"its value: over {left:,} memo entries"):
        opened(with_slot(left))


def test_reading_touches_no_tensor_of_a_large_file() -> None:
    source = Memory(legacy({f"{number}": torch.ones(100_000) for number in range(5)}))
    open_checkpoint(source)
    assert sum(nbytes for _, nbytes in source.reads) < source.size / 3


def test_view_of_a_storage_begins_where_it_says() -> None:
    """As torch wrote them before 0.4: the tensor's offset counts from the view."""
    view = hostile.tuple_of(hostile.text("7"), hostile.number(1), hostile.number(3))
    data = made(state_dict(a=hostile.tensor([2], offset=1, of=storage(view=view))))
    assert contents(opened(data)) == expected(loaded(data))
    assert contents(opened(data))["a"][2] == bytes(range(8, 16))


def test_views_of_one_storage_are_read_as_torch_reads_them() -> None:
    tensors = {}
    for key, first in (("7", 0), ("8", 2)):
        part = hostile.tuple_of(hostile.text(key), hostile.number(first), hostile.number(2))
        tensors[f"w{key}"] = hostile.tensor([2], of=storage(view=part))
    data = made(state_dict(**tensors, whole=hostile.tensor(of=storage())))
    found = expected(loaded(data))
    assert contents(opened(data)) == found
    assert [held[2] for held in found.values()] == [
        bytes(range(8)),
        bytes(range(8, 16)),
        bytes(range(16)),
    ]


@pytest.mark.parametrize("part", ["version", "system"])
def test_small_pickle_has_a_limit(part: str) -> None:
    """Of 4,096 bytes; a text of any length is not what torch writes there."""
    most = "x" * (4096 - len(pickle.dumps("x" * 256, 2)) + 256)
    assert len(pickle.dumps(most, 2)) == 4096
    with pytest.raises(FormatError, match=r"protocol '|lacks the description"):
        opened(made(ONE, **{part: pickle.dumps(most, 2)}))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="has over 4,096 bytes"):
        opened(made(ONE, **{part: pickle.dumps(most + "x", 2)}))  # type: ignore[arg-type]


# Of each tensor: the key of its view or None, first element, number of elements, storage.
VIEWS: dict[str, tuple[list[tuple[str | None, int, int, str]], str]] = {
    "two places": ([("7", 0, 2, "0"), ("7", 2, 2, "0")], "view 7 is of two"),
    "two lengths": ([("7", 0, 2, "0"), ("7", 0, 3, "0")], "view 7 is of two"),
    "two storages": ([("7", 0, 4, "0"), ("7", 0, 4, "1")], "view 7 is of two"),
    "earlier storage": ([(None, 0, 4, "0"), ("0", 0, 4, "1")], "the key of a storage"),
    "later storage": ([("1", 0, 4, "0"), (None, 0, 4, "1")], "the key of a storage"),
    "own storage": ([("0", 2, 2, "0")], "the key of a storage"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_with_the_key_of_something_else_is_refused(name: str) -> None:
    places, says = VIEWS[name]
    numbers = torch.arange(8.0)
    tensors, seeming, keys = {}, {}, dict.fromkeys(place[3] for place in places)
    for key, first, numel, of in places:
        part = [hostile.text(key or ""), hostile.number(first), hostile.number(numel)]
        view = hostile.tuple_of(*part) if key else hostile.NONE
        tensors[f"w{len(tensors)}"] = hostile.tensor([numel], of=storage(key=of, view=view))
        seeming[f"w{len(seeming)}"] = numbers[4 * int(of) + first :][:numel]
    data = made(
        state_dict(**tensors),
        keys=tuple(keys),
        storages=b"".join(struct.pack("<q4f", 4, *numbers[4 * int(key) :][:4]) for key in keys),
    )
    with pytest.raises(FormatError, match=says):
        opened(data)
    try:
        found = expected(torch.load(BytesIO(data), weights_only=True))
    except (RuntimeError, pickle.UnpicklingError):
        return  # torch refuses it too
    assert found != expected(seeming), "torch takes the first one for both"


def test_view_of_other_dtype_than_its_storage_counts_bytes() -> None:
    view = hostile.tuple_of(hostile.text("7"), hostile.number(1), hostile.number(3))
    tensor = hostile.call(
        "torch._utils",
        "_rebuild_tensor_v3",
        storage(view=view),
        hostile.number(3),
        hostile.tuple_of(hostile.number(4)),
        hostile.tuple_of(hostile.number(1)),
        b"\x89",
        hostile.DICT,
        hostile.global_("torch", "uint8"),
    )
    data = made(state_dict(a=tensor))
    assert contents(opened(data)) == expected(torch.load(BytesIO(data), weights_only=True))
    assert contents(opened(data))["a"][2] == bytes(range(7, 11))


def boundaries(data: bytes) -> list[int]:
    """Where each of the five pickles ends, and where the storages begin and end."""
    source, ends = BytesIO(data), []
    for number in range(5):
        if number == 3:
            checkpoint = opened(data)
            assert isinstance(checkpoint, TorchLegacyFile)
            source.seek(checkpoint.value.end)
        else:
            pickle.load(source)  # noqa: S301 - made above
        ends.append(source.tell())
    return ends


@pytest.mark.parametrize("protocol", [2, 4])
def test_fault_06_truncated_anywhere_is_refused(protocol: int) -> None:
    data = legacy(STATE, protocol)
    near = {end + by for end in boundaries(data) for by in (-1, 0, 1)}
    assert near <= set(range(len(data)))
    for end in range(len(data)):
        with pytest.raises(FormatError) as refused:
            opened(data[:end])
        assert refused.value.exit_code == 3
        assert "\n" not in str(refused.value)


REDUCED = hostile.PROTO2 + hostile.call("builtins", "int", hostile.text("1")) + hostile.STOP


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (made(ONE, magic=pickle.dumps(0x1950A86A20F9469CFC6D, 2)), "a bare pickle"),
        (made(ONE, magic=pickle.dumps("x", 2)), "a bare pickle"),
        (made(ONE, magic=REDUCED), "a bare pickle"),
        (made(ONE, version=pickle.dumps(1002, 2)), "protocol 1002, expected 1001"),
        (made(ONE, version=pickle.dumps(1000, 2)), "protocol 1000, expected 1001"),
        (made(ONE, version=pickle.dumps(True, 2)), "protocol True"),
        (made(ONE, version=pickle.dumps([1001], 2)), "protocol a list"),
        (made(ONE, version=REDUCED), "its protocol: calls builtins.int"),
        (made(ONE, version=pickle.dumps("x" * 5000, 2)), "has over 4,096 bytes"),
        (made(ONE, system=pickle.dumps(7, 2)), "lacks the description of the system"),
        (made(ONE, system=pickle.dumps({"little_endian": False}, 2)), "a big-endian machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_07_what_is_not_written_by_torch_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError) as refused:
        opened(data)
    assert says in str(refused.value)
    assert refused.value.exit_code == 3


FOUR = struct.pack("<q", 4) + bytes(16)
LIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no such storage": (lambda: made(ONE, keys=(), storages=b""), "its list of storages differs"),
    "one storage too many": (
        lambda: made(ONE, keys=("0", "1"), storages=2 * FOUR), "its list of storages differs"
    ),
    "a storage twice": (
        lambda: made(ONE, keys=("0", "0"), storages=2 * FOUR), "malformed list of storages"
    ),
    "keys of numbers": (lambda: made(ONE, keys=(0,)), "malformed list of storages"),
    "no list": (lambda: made(ONE, keys="0"), "malformed list of storages"),
    "another length": (
        lambda: made(ONE, storages=struct.pack("<q", 3) + bytes(16)),
        "storage 0 has 3 elements, its tensors expect 4",
    ),
    "a greater length": (
        lambda: made(ONE, storages=struct.pack("<q", 5) + bytes(16)),
        "storage 0 has 5 elements, its tensors expect 4",
    ),
    "a negative length": (
        lambda: made(ONE, storages=struct.pack("<q", -4) + bytes(16)), "has -4 elements"
    ),
    "bytes that follow": (lambda: made(ONE) + b"x", "1 bytes after its last storage"),
    "many bytes that follow": (
        lambda: made(ONE) + bytes(1023), "1,023 bytes after its last storage"
    ),
    "bytes that lack": (
        lambda: made(ONE)[:-1],
        f"storage 0 ends at byte {len(made(ONE)):,}, the file at {len(made(ONE)) - 1:,}",
    ),
    "two sizes of a storage": (
        lambda: made(state_dict(
            a=hostile.tensor(of=storage()), b=hostile.tensor([2], of=storage(numel=2))
        )),
        "has two dtypes or sizes",
    ),
    "view past the end": (
        lambda: made(state_dict(a=hostile.tensor(of=storage(
            view=hostile.tuple_of(hostile.text("7"), hostile.number(1), hostile.number(4))
        )))),
        "view 7 reaches beyond its storage 0",
    ),
    "view of text": (
        lambda: made(state_dict(a=hostile.tensor(of=storage(view=hostile.text("v"))))),
        "not a view of a storage",
    ),
    "a module": (
        lambda: made(state_dict(
            a=hostile.tensor(of=storage()),
            b=hostile.tuple_of(hostile.text("module"), hostile.NONE, hostile.NONE, hostile.NONE)
            + hostile.BINPERSID,
        )),
        "not a storage",
    ),
    "2^62 elements": (
        lambda: made(state_dict(a=hostile.tensor(of=storage(numel=2**62)))),
        "the file at",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_fault_13_storages_that_lie_are_refused(name: str) -> None:
    make, says = LIES[name]
    with pytest.raises(FormatError) as refused:
        opened(make())
    assert says in str(refused.value)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize("name", sorted(hostile.VARIANTS.keys() - hostile.OPAQUE))
def test_fault_03_variants_are_refused_here_too(name: str) -> None:
    with pytest.raises(FormatError):
        opened(made(hostile.VARIANTS[name]))


@pytest.mark.parametrize("part", ["magic", "version", "system", "keys"])
def test_fault_01_foreign_global_is_refused_in_every_pickle(part: str) -> None:
    evil = hostile.PROTO2 + hostile.call("os", "system", hostile.text("touch canary")) + b"."
    if part == "keys":
        data = b"".join([MAGIC, VERSION, SYSTEM, ONE, evil, FOUR])
    else:
        data = made(ONE, **{part: evil})  # type: ignore[arg-type]
    with pytest.raises(FormatError) as refused:
        opened(data)
    if part != "magic":  # without it no one takes it for a file of torch
        assert isinstance(refused.value, RefusedGlobalError)
        assert "refused global os.system at offset" in str(refused.value)


def test_fault_19_changed_byte_is_refused_or_read_as_torch_reads_it() -> None:
    """No checksum guards the form, so that another name or value may come out."""
    data = legacy(STATE)
    agreed = 0
    for at in range(len(data)):
        mutant = data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :]
        try:
            found = contents(opened(mutant))
        except CkptError:
            continue
        try:
            theirs = torch.load(BytesIO(mutant), weights_only=True)
        except Exception:  # noqa: BLE001 - of whatever kind; torch sees what we need not
            continue
        assert found == expected(theirs), at
        agreed += 1
    assert agreed > 100
