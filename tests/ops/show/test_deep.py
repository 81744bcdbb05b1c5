"""`show --deep`: everything is read once; what is damaged is named, and bits are bits."""

import hashlib
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt.errors import CkptError, FormatError, IntegrityError, RefError
from ckpt.ops.register import register
from ckpt.ops.show import show
from ckpt.ops.show.deep import Deep, Examined
from ckpt.registry.registry import Registry
from tests.formats.support import raw

STATE = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a.mask": torch.tensor([True, False]),
    "b.half": torch.tensor([1, float("nan"), float("-inf"), -0.0], dtype=torch.float16),
    "b.empty": torch.zeros(0, 3),
    "b.scalar": torch.tensor(float("inf")),
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    return path


def deep(ref: object) -> Deep:
    found = show(str(ref), deep=True).deep
    assert found is not None
    return found


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def offset_of(path: Path, record: str) -> int:
    """Where the data of a record begin."""
    with zipfile.ZipFile(path) as archive:
        info = next(each for each in archive.infolist() if each.filename.endswith(record))
    head = path.read_bytes()[info.header_offset :][:30]
    return info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(data)


EXPECTED = {
    "a.weight": Examined(sha256(raw(STATE["a.weight"])), 0, 0),
    "a.mask": Examined(sha256(b"\1\0"), None, None),
    "b.half": Examined(sha256(struct.pack("<4e", 1, float("nan"), -float("inf"), -0.0)), 1, 1),
    "b.empty": Examined(sha256(b""), 0, 0),
    "b.scalar": Examined(sha256(struct.pack("<f", float("inf"))), 0, 1),
}


def test_digests_and_special_values_of_a_torch_file(file: Path) -> None:
    found = deep(file)
    assert found.tensors == EXPECTED
    with zipfile.ZipFile(file) as archive:
        assert found.sums == sum(info.file_size > 0 for info in archive.infolist())
    assert (found.sums_absent, found.objects) == (0, None)


def test_safetensors_has_no_sums_and_the_same_digests(file: Path) -> None:
    save_file(STATE, file.with_name("x.safetensors"))
    found = deep("x.safetensors")
    assert found == Deep(EXPECTED)


def test_version_has_the_same_digests(file: Path) -> None:
    register(str(file), name="m")
    found = deep("m:v1")
    assert found.tensors == EXPECTED
    assert found.objects == len(Registry().manifest(Registry().version("m:v1")).objects())


def test_views_and_tied_tensors(file: Path) -> None:
    base = torch.arange(12.0)
    state = {"row": base[4:8], "column": base.reshape(3, 4)[:, 1], "all": base, "tied": base}
    torch.save(state, file)
    found = deep(file).tensors
    for key, tensor in state.items():
        assert found[key].digest == sha256(raw(tensor)), key


def test_fault_21_bits_that_compare_equal_have_other_digests(file: Path) -> None:
    patterns = {
        "zero": 0x00000000, "minus": 0x80000000, "denormal": 0x00000001,
        "nan": 0x7FC00000, "payload": 0x7FC00001, "negative nan": 0xFFC00000,
    }  # fmt: skip
    state = {
        key: torch.frombuffer(bytearray(struct.pack("<I", bits)), dtype=torch.float32)
        for key, bits in patterns.items()
    }
    torch.save(state, file)
    found = deep(file).tensors
    assert len({each.digest for each in found.values()}) == len(patterns)
    assert {key: each.nan for key, each in found.items()} == {
        key: int("nan" in key or key == "payload") for key in patterns
    }


def test_fault_08_flipped_bit_of_a_storage_names_the_tensor(file: Path) -> None:
    flip(file, offset_of(file, "data/0") + 5)
    torch.load(file)  # does not notice
    assert show(str(file)).entries  # nor does what reads the header alone
    with pytest.raises(FormatError, match=r"x\.pt: a\.weight: x/data/0 is damaged: its CRC-32 is"):
        deep(file)


def test_fault_08_every_byte_of_a_storage_counts(file: Path) -> None:
    begin = offset_of(file, "data/0")
    for position in range(begin, begin + STATE["a.weight"].nbytes):
        flip(file, position)
        with pytest.raises(FormatError, match=r"a\.weight"):
            deep(file)
        flip(file, position)
    assert deep(file).tensors == EXPECTED


def test_fault_08_flipped_bit_of_a_shard_names_shard_and_tensor(file: Path) -> None:
    shards = {"one.bin": {"a": torch.randn(3)}, "two.bin": {"b": torch.randn(3)}}
    for name, state in shards.items():
        torch.save(state, name)
    weight_map = {key: name for name, state in shards.items() for key in state}
    index = {"metadata": {"total_size": 24}, "weight_map": weight_map}
    Path("model.bin.index.json").write_text(json.dumps(index))
    assert {key: each.digest for key, each in deep("model.bin.index.json").tensors.items()} == {
        key: sha256(raw(tensor)) for state in shards.values() for key, tensor in state.items()
    }
    flip(Path("two.bin"), offset_of(Path("two.bin"), "data/0"))
    with pytest.raises(FormatError, match=r": b: two\.bin: two/data/0 is damaged"):
        deep("model.bin.index.json")


def test_fault_08_flipped_bit_of_the_pickle(file: Path) -> None:
    flip(file, offset_of(file, "data.pkl") + 30)
    with pytest.raises(FormatError, match=r"data\.pkl"):
        deep(file)


def test_fault_08_flipped_bit_of_another_record_names_the_record(file: Path) -> None:
    flip(file, offset_of(file, "serialization_id"))
    with pytest.raises(FormatError, match=r"^\S*x\.pt: x/\.data/serialization_id is damaged"):
        deep(file)


def test_fault_08_all_keys_of_a_storage_are_named_up_to_three(file: Path) -> None:
    base = torch.arange(12.0)
    torch.save({f"part{index}": base[index : index + 2] for index in range(5)}, file)
    flip(file, offset_of(file, "data/0") + 40)
    with pytest.raises(FormatError, match=r"part0, part1, part2 and 2 more keys: x/data/0"):
        deep(file)


def test_fault_08_file_without_sums_is_accepted_and_they_are_counted(file: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, file)
    finally:
        torch.serialization.set_crc32_options(True)
    found = deep(file)
    assert found.sums == 0
    assert found.sums_absent > len(STATE)
    assert found.tensors == EXPECTED


def test_fault_08_damaged_object_of_a_version_names_the_key(file: Path) -> None:
    state = {"fc.weight": torch.randn(2000), "fc.bias": torch.randn(2)}
    torch.save(state, file)
    register(str(file), name="m")
    objects = Registry().store.root / "objects"
    flip(next(path for path in objects.rglob("*") if path.is_file()), 100)
    with pytest.raises(IntegrityError, match=r"of m:v1: fc\.weight is damaged") as refused:
        deep("m:v1")
    assert refused.value.exit_code == 4
    assert show("m:v1").entries  # the manifest alone


def test_fault_08_damaged_object_beside_the_state_dict_is_found(file: Path) -> None:
    torch.save({"model": {"w": torch.randn(2)}, "optimizer": {"m": torch.randn(2000)}}, file)
    register(f"{file}::model", name="m")
    objects = Registry().store.root / "objects"
    flip(next(path for path in objects.rglob("*") if path.is_file()), 100)
    with pytest.raises(IntegrityError, match=r"of m:v1: bytes at \d+ is damaged"):
        deep("m:v1")


def test_fault_14_view_that_would_grow_beyond_proportion_is_refused(file: Path) -> None:
    torch.save({"e": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)
    with pytest.raises(FormatError, match="e: a view that would expand to 4 TiB"):
        deep(file)


def test_definition_holds_nothing_to_read(file: Path) -> None:
    with pytest.raises(RefError, match="has no weights to read"):
        show("torch.nn:Identity", deep=True)


def test_tensor_that_fills_its_record_is_read_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.zeros(1_000_000), "b": torch.zeros(10)}, file)
    read = 0
    pread = os.pread

    def counted(descriptor: int, nbytes: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, nbytes, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert deep(file).sums
    assert 4_000_040 < read < 4_100_000


def test_memory_does_not_grow_with_the_tensor(file: Path) -> None:
    torch.save({"a": torch.zeros(16_000_000)}, file)  # 64 MB
    deep(file)  # what is imported counts once
    tracemalloc.start()
    try:
        deep(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24_000_000


def test_fault_19_any_flipped_byte_is_refused_or_changes_nothing_shown(file: Path) -> None:
    torch.save({"a": torch.arange(4.0), "b": torch.arange(3)}, file)
    good, data = deep(file), file.read_bytes()
    refused = 0
    for position in range(0, len(data), 3):
        mutant = bytearray(data)
        mutant[position] ^= 0xFF
        file.write_bytes(mutant)
        try:
            assert deep(file).tensors == good.tensors
        except CkptError:
            refused += 1
    assert refused > len(data) // 12
