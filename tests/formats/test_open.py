"""Recognition is by content; what is no checkpoint is named, and torch stays unloaded."""

import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ckpt.errors import FormatError, UsageError
from ckpt.formats import format_for, open_checkpoint
from ckpt.tensors import Span
from tests.formats.support import Memory, contents, expected, opened, saved

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def _zip(*names: str) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return out.getvalue()


def _tar(name: str) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


FOREIGN = {
    "empty": (b"", "an empty file", "download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS", "git lfs pull"),
    "html": (b"<!DOCTYPE html><html>404</html>", "an HTML page", "try again"),
    "html after blanks": (b"\n\n <HTML>", "an HTML page", "try again"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive", "gunzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "unpack"),
    "bzip2": (b"BZh91AY", "a bzip2 archive", "bunzip2"),
    "xz": (b"\xfd7zXZ\x00", "an xz archive", "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd", "a zstd archive", "unzstd"),
    "tar": (_tar("weights.pt"), "a tar archive", "tar -xf"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG image", ""),
    "jpeg": (b"\xff\xd8\xff\xe0", "a JPEG image", ""),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5", ""),
    "gguf": (b"GGUF\x03\x00\x00\x00", "GGUF", ""),
    "onnx": (b"\x08\x07\x12\x07pytorch", "ONNX", ""),
    "numpy": (b"\x93NUMPY\x01\x00", "a NumPy array", ""),
    "program": (b"\x7fELF\x02\x01", "a program", ""),
    "tar of torch": (
        _tar("sys_info"),
        "a tar archive that torch.save wrote before torch 0.1.10",
        "torch.load",
    ),
    "bare pickle": (pickle.dumps({"a": 1}), "a bare pickle", "torch.save"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "zip archive", ""),
    "other zip": (_zip("readme.txt"), "zip archive without the data.pkl", ""),
    "zip of folders": (_zip("folder/readme.txt"), "zip archive without data.pkl", ""),
    "zip of two folders": (_zip("a/data.pkl", "b/data/0"), "a zip archive with 2 folders", ""),
    "torch.export": (_zip("model/archive_format"), "a torch.export archive", "state_dict"),
    "json": (b'{"metadata": {}, "weight_map": {}}', "a JSON file", ""),
    "text": (b"hello, world", "neither a torch file nor safetensors", "damaged"),
    "braces": (b"function(){ return }", "neither a torch file nor safetensors", "damaged"),
    "zeros": (bytes(4096), "neither a torch file nor safetensors", "damaged"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_fault_11_what_is_no_checkpoint_is_named(name: str) -> None:
    data, what, hint = FOREIGN[name]
    with pytest.raises(FormatError) as refused:
        opened(data)
    assert str(refused.value).startswith("file: ")
    assert what in str(refused.value)
    assert hint in (refused.value.hint or "")
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("data", "name"), [(saved(STATE), "torch-zip"), (save(STATE), "safetensors")]
)
def test_format_is_told_by_content(data: bytes, name: str) -> None:
    checkpoint = open_checkpoint(Memory(data, name="weights.png"))
    assert checkpoint.format == name
    assert contents(checkpoint) == expected(STATE)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_suffix_chooses_what_is_written(suffix: str) -> None:
    assert format_for(Path("a" + suffix)).NAME == "torch-zip"
    assert format_for(Path("a.safetensors")).NAME == "safetensors"


def test_unknown_suffix_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"a\.onnx: unknown suffix"):
        format_for(Path("a.onnx"))


@pytest.mark.parametrize("make", [saved, save], ids=["torch-zip", "safetensors"])
def test_reading_touches_no_tensor(make: Callable[[object], bytes]) -> None:
    state = {f"layer.{i}.weight": torch.full((1000,), float(i)) for i in range(20)}
    source = Memory(make(state))
    checkpoint = open_checkpoint(source)
    assert len(checkpoint.spans) == 20
    # Recognition looks at the first bytes, whatever they are.
    spans = [span for span in checkpoint.spans if span.offset > 512]
    for offset, nbytes in source.reads[1:]:
        read = Span(offset, nbytes)
        assert all(read.end <= span.offset or span.end <= read.offset for span in spans)


@pytest.mark.parametrize("make", [saved, save], ids=["torch-zip", "safetensors"])
def test_reading_and_renaming_load_neither_torch_nor_numpy(
    make: Callable[[object], bytes], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(make(STATE))
    script = """
import io, sys
from pathlib import Path
from ckpt.io.sources import FileSource
from ckpt.formats import format_for, open_checkpoint
from ckpt.formats.stream import tensor_bytes, write_layout

with FileSource(Path(sys.argv[1])) as source:
    checkpoint = open_checkpoint(source)
    list(tensor_bytes(source, checkpoint.entries[0]))
    write_layout(checkpoint.renamed({"a.weight": "b.weight"}), source, io.BytesIO())
    for suffix in (".pt", ".safetensors"):
        layout = format_for(Path("x" + suffix)).lay_out(checkpoint.entries, name="x")
        write_layout(layout, source, io.BytesIO())
print({"torch", "numpy", "safetensors", "zipfile", "pickle"} & set(sys.modules) or "none")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "file"], capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("none\n", "")


@pytest.mark.parametrize("write", [save, saved], ids=["safetensors", "pt"])
def test_key_of_very_many_parts_is_refused(write: Callable[..., bytes]) -> None:
    most = ".".join("a" * 128)
    assert [entry.key for entry in opened(write({most: torch.ones(1)})).entries] == [most]
    for parts in (129, 50_000):
        with pytest.raises(FormatError, match="more than 128 parts"):
            opened(write({".".join("a" * parts): torch.ones(1)}))
