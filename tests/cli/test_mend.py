"""`ckpt repair FILE -o NEW`: files that are nearly safetensors, with the library as the oracle."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from tests.cli.support import Run

DATA = struct.pack("<8f", *range(8))
WEIGHT = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
BIAS = {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}
GOOD = {"fc.weight": WEIGHT, "fc.bias": BIAS}
TENSORS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([6.0, 7.0])}


def file(header: Any, body: bytes = DATA, *, before: bytes = b"", after: bytes = b"") -> bytes:
    text = before + json.dumps(header).encode() + after
    return struct.pack("<Q", len(text)) + text + body


MENDABLE = {
    "NUL after the header": (
        file(GOOD, after=bytes(300)),
        "left out 300 bytes around the header's JSON",
    ),
    "byte order mark": (
        file(GOOD, before=b"\xef\xbb\xbf"),
        "left out 3 bytes around the header's JSON",
    ),
    "space before": (file(GOOD, before=b"  "), "left out 2 bytes around the header's JSON"),
    "bytes after the last tensor": (
        file(GOOD, DATA + bytes(16)),
        "left out 16 bytes after the last tensor",
    ),
    "hole": (
        file(
            {**GOOD, "fc.bias": {**BIAS, "data_offsets": [28, 36]}}, DATA[:24] + b"gap!" + DATA[24:]
        ),
        "left out 4 bytes between the tensors",
    ),
    "numbers in the metadata": (
        file({"__metadata__": {"epoch": 3, "name": "net", "config": {"a": 1}}, **GOOD}),
        "wrote as text in the metadata: epoch, config",
    ),
    "metadata is a list": (
        file({"__metadata__": [1], **GOOD}),
        "left out the metadata, which is not an object",
    ),
    "dtype in small letters": (
        file({**GOOD, "fc.bias": {**BIAS, "dtype": "f32"}}),
        "wrote the dtype of fc.bias as F32",
    ),
    "unknown field": (
        file({**GOOD, "fc.bias": {**BIAS, "scale": 1}}),
        "left out what the format does not have of fc.bias: scale",
    ),
    "entry without dtype and bytes": (
        file({**GOOD, "head": {"dtype": "", "shape": [], "data_offsets": [0, 0]}}),
        "left out head, which has no dtype and no bytes",
    ),
}


@pytest.mark.parametrize(("data", "change"), MENDABLE.values(), ids=MENDABLE)
def test_new_file_holds_the_tensors_and_each_change_is_said(
    ckpt: Run, folder: Path, data: bytes, change: str
) -> None:
    bad = folder / "my net.safetensors"
    bad.write_bytes(data)
    refused = ckpt("show", bad.name)
    assert (refused.code, "ckpt repair 'my net.safetensors' -o NEW" in refused.err) == (3, True)
    ran = ckpt("repair", bad.name, "-o", "new.safetensors")
    assert (ran.code, ran.out) == (0, f"wrote new.safetensors\n  {change}\n"), ran.err
    found = load_file(folder / "new.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)
    assert bad.read_bytes() == data
    assert ckpt("repair", "new.safetensors").code == 0
    again = ckpt("repair", bad.name, "-o", "new.safetensors")
    assert (again.code, "already exists" in again.err) == (2, True)


def test_metadata_arrives_as_text(ckpt: Run, folder: Path) -> None:
    (folder / "bad.safetensors").write_bytes(MENDABLE["numbers in the metadata"][0])
    assert ckpt("repair", "bad.safetensors", "-o", "new.safetensors").code == 0
    with safe_open(folder / "new.safetensors", "pt") as opened:
        assert opened.metadata() == {"epoch": "3", "name": "net", "config": '{"a": 1}'}


def test_tensors_that_share_bytes_get_their_own(ckpt: Run, folder: Path) -> None:
    (folder / "bad.safetensors").write_bytes(file({**GOOD, "tie": WEIGHT}))
    with pytest.raises(SafetensorError):
        load_file(folder / "bad.safetensors")
    ran = ckpt("repair", "bad.safetensors", "-o", "new.safetensors", "--json")
    assert ran.data["changes"] == ["copied the bytes that another tensor has too: tie"]
    found = load_file(folder / "new.safetensors")
    assert torch.equal(found["tie"], found["fc.weight"])
    assert torch.equal(found["fc.bias"], TENSORS["fc.bias"])


def test_tensor_without_elements_stays(ckpt: Run, folder: Path) -> None:
    empty = {"dtype": "F32", "shape": [0, 2], "data_offsets": [0, 0]}
    (folder / "bad.safetensors").write_bytes(file({**GOOD, "none": empty}, after=b"\0"))
    assert ckpt("repair", "bad.safetensors", "-o", "new.safetensors").code == 0
    assert load_file(folder / "new.safetensors")["none"].shape == (0, 2)


# The name "fc.bi??" becomes the other's, and the length stays.
TWICE = file({"fc.bias": BIAS, "fc.bi??": BIAS}).replace(b"fc.bi??", b"fc.bias")
REFUSED = {
    "missing bytes": (file(GOOD, DATA[:-4]), "the file is truncated"),
    "two tensors of one name": (TWICE, "'fc.bias' appears twice"),
    "sizes that disagree": (file({**GOOD, "fc.bias": {**BIAS, "shape": [3]}}), "expected 12"),
    "another kind of file": (b"PK\3\4" + bytes(80), "not a safetensors file"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_guessed(ckpt: Run, folder: Path, data: bytes, message: str) -> None:
    (folder / "bad.safetensors").write_bytes(data)
    for out in ([], ["-o", "new.safetensors"]):
        ran = ckpt("repair", "bad.safetensors", *out)
        assert ran.code == 3, ran
    assert message in ran.err
    assert not (folder / "new.safetensors").exists()


def test_good_file_is_not_written_anew(ckpt: Run, folder: Path) -> None:
    (folder / "good.safetensors").write_bytes(file(GOOD))
    ran = ckpt("repair", "good.safetensors", "-o", "new.safetensors")
    assert (ran.code, ran.out) == (0, "good.safetensors: whole, nothing to repair\n")
    assert not (folder / "new.safetensors").exists()
    assert ckpt("repair", "good.safetensors", "-o", "good.safetensors").code == 2
