"""Damage that a container's own checksums tell of is not handed on to what has none."""

from io import BytesIO
from pathlib import Path
from zlib import crc32

import pytest
import torch

import ckpt
from ckpt.errors import FormatError, IntegrityError
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checksum
from ckpt.rules.document import read_rules
from ckpt.tensors import Span, TensorEntry
from tests.cli.support import tree
from tests.formats.support import Memory

WHOLE = torch.arange(2_000_000.0)
STATE = {
    "plain": torch.arange(1000.0),
    "view": WHOLE[5:1000],
    "turned": torch.arange(6000.0).reshape(60, 100).t(),
    "other": torch.ones(3),
}


def damaged(folder: Path, key: str) -> Path:
    """A file with one flipped bit in the record of a tensor."""
    path = folder / f"{key}.pt"
    torch.save({"model": STATE, "beside": [torch.full((500,), 7.0)]}, path)
    offset = {"beside": path.read_bytes().index(torch.full((2,), 7.0).numpy().tobytes())}
    with ckpt.open(f"{path}::model") as lazy:
        offset |= {entry.key: entry.offset for entry in lazy.entries if entry.offset}
    data = bytearray(path.read_bytes())
    data[offset[key] + 8] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("key", ["plain", "view", "turned"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_fault_08_damaged_tensor_is_not_converted(tmp_path: Path, key: str, suffix: str) -> None:
    path, out = damaged(tmp_path, key), tmp_path / f"out{suffix}"
    with pytest.raises(FormatError, match=f"{key}.* is damaged: its CRC-32 is"):
        ckpt.export(f"{path}::model", out)
    assert not out.exists()


def test_damage_beside_the_state_dict_does_not_hinder_its_export(tmp_path: Path) -> None:
    ckpt.export(f"{damaged(tmp_path, 'beside')}::model", tmp_path / "out.safetensors")


@pytest.mark.parametrize("key", ["plain", "view", "turned", "beside"])
def test_fault_08_damaged_file_is_not_registered(tmp_path: Path, key: str) -> None:
    path = damaged(tmp_path, key)
    before = tree(tmp_path)
    with pytest.raises(FormatError, match="is damaged: its CRC-32 is"):
        ckpt.register(f"{path}::model", registry=ckpt.Registry(tmp_path))
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith(".ckpt/objects")} == before


def test_fault_08_damaged_tensor_goes_into_no_operation(tmp_path: Path) -> None:
    path = damaged(tmp_path, "plain")
    rules = read_rules([{"reshape": "plain", "shape": [10, 100]}], name="r")
    with pytest.raises(FormatError, match=r"plain.* is damaged"):
        ckpt.rename(f"{path}::model", rules, out=tmp_path / "out.pt")
    rules = read_rules([{"reshape": "other", "shape": [3, 1]}, {"drop": "plain"}], name="r")
    ckpt.rename(f"{path}::model", rules, out=tmp_path / "out.pt")
    assert torch.load(tmp_path / "out.pt")["model"]["other"].shape == (3, 1)


def test_rename_of_the_container_keeps_the_sums_that_tell(tmp_path: Path) -> None:
    path = damaged(tmp_path, "plain")
    ckpt.rename(f"{path}::model", ["plain->p"], out=tmp_path / "out.pt")
    from ckpt.ops.show import show

    with pytest.raises((FormatError, IntegrityError), match=r"p: .* is damaged"):
        show(f"{tmp_path / 'out.pt'}::model", deep=True)


BYTES = bytes(range(100))
RECORDS = [Span(10, 10), Span(30, 10), Span(40, 5)]


def entry(key: str, offset: int, nbytes: int = 1) -> TensorEntry:
    return TensorEntry(key, "uint8", (nbytes,), offset)


def checked(*entries: TensorEntry, damaged: Span | None = None) -> tuple[CheckedSource, Memory]:
    """A source with three records, given in another order, and one whose checksum is unknown."""
    sums = [
        Checksum(it, crc32(BYTES[it.offset : it.end]) ^ (it == damaged), f"data/{it.offset}")
        for it in reversed(RECORDS)
    ]
    source = Memory(BYTES)
    return CheckedSource(source, [*sums, Checksum(Span(60, 10), None, "data/60")], entries), source


def test_records_that_were_not_read_whole_are_read_at_the_end() -> None:
    source, memory = checked()
    assert source.read(30, 10) == BYTES[30:40]
    out = BytesIO()
    seen: list[bytes] = []
    source.copy(40, 5, out, seen.append)
    assert out.getvalue() == b"".join(seen) == BYTES[40:45]
    source.copy(11, 3, out)
    memory.reads.clear()
    source.finish()
    assert memory.reads == [(10, 10)]
    source.finish()
    assert memory.reads == [(10, 10)]


@pytest.mark.parametrize(
    ("position", "nbytes", "reads"),
    [
        (0, 1, []), (9, 1, []), (10, 1, [(10, 10)]), (19, 1, [(10, 10)]), (20, 1, []),
        (30, 10, [(30, 10)]), (39, 1, [(30, 10)]), (40, 1, [(40, 5)]), (45, 1, []), (99, 1, []),
        (15, 0, []),
    ],
)  # fmt: skip
def test_only_the_records_of_some_tensors_are_read(
    position: int, nbytes: int, reads: list[tuple[int, int]]
) -> None:
    source, memory = checked()
    source.finish([entry("a", position, nbytes)])
    assert memory.reads == reads


def test_records_of_several_tensors_are_read_once_in_order() -> None:
    source, memory = checked()
    source.finish([entry("a", 41), entry("b", 11), entry("c", 12)])
    assert memory.reads == [(10, 10), (40, 5)]


@pytest.mark.parametrize(
    ("count", "named"),
    [(0, ""), (1, "k0: "), (3, "k0, k1, k2: "), (5, "k0, k1, k2 and 2 more keys: ")],
)
def test_fault_08_damage_is_told_with_the_first_keys(count: int, named: str) -> None:
    inside = [entry(f"k{number}", 30 + 2 * number) for number in range(count)]
    others = [entry("before", 29), entry("after", 40), entry("empty", 33, 0)]
    right = crc32(BYTES[30:40])
    says = f"file: {named}data/30 is damaged: its CRC-32 is {right:08x}, expected {right ^ 1:08x}\n"
    for read in (lambda it: it.read(30, 10), lambda it: it.copy(30, 10, BytesIO()),
                 lambda it: it.finish(), lambda it: it.finish([entry("a", 35)])):  # fmt: skip
        source, _ = checked(*others, *inside, damaged=RECORDS[1])
        with pytest.raises(FormatError) as refused:
            read(source)
        assert f"{refused.value}\n".startswith(says)
