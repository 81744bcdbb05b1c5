"""Recognition is by content; what is no checkpoint is named, and torch stays unloaded."""

import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import joblib
import numpy
import pytest
import torch
from safetensors.torch import save

from ckpt.errors import FormatError, UsageError
from ckpt.formats import expect_suffix, format_for, format_of, open_checkpoint
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


def _joblib() -> bytes:
    out = BytesIO()
    joblib.dump({"w": numpy.arange(5.0)}, out)
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
    # The first bytes that onnx, coremltools, TensorFlow's protos, msgpack, lz4 and joblib wrote.
    "onnx without a producer": (
        bytes.fromhex(
            "080e3a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a020801620f"
        ),
        "an ONNX model",
        "onnx2torch",
    ),
    "onnx of onnx": (
        bytes.fromhex(
            "080e12077079746f7263683a330a0c0a0178120179220452656c751201675a0f0a0178120a0a0808"
        ),
        "an ONNX model",
        "onnx2torch",
    ),
    "core ml 1": (
        bytes.fromhex("080112100a0e0a05696d6167651a052a030a0103a21f050a030a0161"),
        "a Core ML model",
        "coremltools",
    ),
    "core ml 7": (
        bytes.fromhex("080712100a0e0a05696d6167651a052a030a0103a21f050a030a0161"),
        "a Core ML model",
        "coremltools",
    ),
    "saved model": (
        bytes.fromhex(
            "080112310a1012070a050a0341646422057365727665121d0a1b0a126d6f64656c2f64656e73652f"
        ),
        "a TensorFlow SavedModel",
        "tf2onnx",
    ),
    "tensorflow graph": (
        bytes.fromhex("0a1b0a126d6f64656c2f64656e73652f6b65726e656c1205436f6e7374"),
        "a TensorFlow graph",
        "tf2onnx",
    ),
    "msgpack": (bytes.fromhex("81a6706172616d7381a177c40431323334"), "a MessagePack file", "flax"),
    "msgpack of many": (
        bytes.fromhex(
            "de0028a2703000a2703101a2703202a2703303a2703404a2703505a2703606a2703707a2703808a2"
        ),
        "a MessagePack file",
        "flax",
    ),
    "lz4": (
        bytes.fromhex("04224d186840e803000000000000f10e0000001f780100ffffffd250787878787800000000"),
        "an LZ4 archive",
        "unlz4",
    ),
    "joblib of zlib": (
        bytes.fromhex(
            "785e6b60997a9d01026aa7f430964fe911ceca4fcac94cd2cb2bcd2da88c2fc84ccece499dd223e8"
        ),
        "a zlib stream, as joblib",
        "joblib.load",
    ),
    "joblib": (_joblib(), "a joblib file", "joblib.load"),
    "tflite": (
        b"\x1c\0\0\0TFL3\x14\0 \0",
        "a TFLite model",
        "--tflite  makes ONNX of it, onnx2torch.convert  a",
    ),
    "executorch": (b"\x1c\0\0\0ET12\x14\0 \0", "an ExecuTorch program", ""),
    "onnx runtime": (b"\x1c\0\0\0ORTM\x14\0 \0", "an ONNX Runtime model", ".onnx"),
    "tensorflow index": (b"\0\0\x06\x08\x01\x1a\x02\x08\x01", "index of a TensorFlow", ""),
    "mxnet": (b"\x12\x01" + bytes(14), "MXNet parameters", "mxnet"),
    "keras": (_zip("metadata.json", "config.json"), "a Keras archive", "keras"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="a">', "an OpenVINO model", ""),
    "xml": (b'<?xml version="1.0"?>\n<Error>', "an HTML page", "download"),
    "rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive", "unpack"),
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


def test_unknown_file_is_told_by_its_first_eight_bytes() -> None:
    with pytest.raises(FormatError, match=r"it begins with b'what is '\n"):
        opened(b"what is this")


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


@pytest.mark.parametrize(
    "name", ["safetensors", "safetensors-sharded", "torch-zip", "torch-legacy"]
)
def test_content_of_a_container_is_written_in_the_nearest_format(name: str) -> None:
    found = format_of(name).NAME
    assert found == ("torch-zip" if "torch" in name else "safetensors")


def test_nearest_suffix_is_named() -> None:
    """One of those that are near."""
    with pytest.raises(UsageError, match=r"^x\.pthh: unknown suffix, expected \.pth$"):
        expect_suffix(Path("x.pthh"))


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
from ckpt.formats import expect_suffix, format_for, format_of, open_checkpoint
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
