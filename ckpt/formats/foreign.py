"""Recognises files that ckpt does not read, by their first bytes, to say what they are.

Sources: the formats' own magic numbers; Git LFS specification, "The Pointer"; for torch's first
form `torch.serialization.legacy_load`; the fields of onnx.proto, Core ML's Model.proto and
TensorFlow's saved_model.proto, meta_graph.proto, graph.proto and tensor_bundle.proto; the
file_identifier of FlatBuffers schemas; the specifications of MessagePack, the LZ4 frame and zlib.
"""

import re

from ckpt.errors import FormatError

_OURS = "ckpt reads PyTorch and safetensors files"
_ARRAYS = "and write the arrays: safetensors.numpy.save_file(arrays, NEW)"
_BY_ONNX = "python -m tf2onnx.convert  makes ONNX of it, onnx2torch.convert  a torch module of that"
_LENGTH = rb"[\x80-\xff]{0,4}[\x00-\x7f]"  # a varint of protobuf
_NAME = rb"[\x01-\x7f][A-Za-z0-9._][A-Za-z0-9._/>\\-]*"  # its length first
# (first bytes, kind of file, hint)
_KNOWN: tuple[tuple[bytes, str, str | None], ...] = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git-LFS pointer, not the file itself",
        "to bring the file:  git lfs pull",
    ),
    (rb"\s*<\?xml[^>]*>\s*<net\s", "an OpenVINO model", _OURS),
    (rb"\s*<(!doctype html|html|head|\?xml)", "an HTML page", "the download failed; try again"),
    (
        rb"(?s)PK\x03\x04.{26}[^/]{1,200}\.npy",
        "a NumPy archive (.npz)",
        "make a checkpoint: torch.save({name: torch.from_numpy(array), ...}, NEW)",
    ),
    (
        rb"(?s)PK\x03\x04.{26}(metadata|config)\.json",
        "a Keras archive (.keras)",
        f"load it with keras, {_ARRAYS}",
    ),
    (rb"\xef\xbb\xbf", "text with a byte order mark", "save it again as UTF-8 without one"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive without the data.pkl of a torch file", None),
    (
        rb"(?s)\x80[\x02-\x05].{0,300}(joblib|numpy_pickle)",
        "a joblib file",
        "if you trust it: joblib.load reads it, torch.save writes its arrays",
    ),
    (
        rb"\x80[\x02-\x05]",
        "a bare pickle, not a torch file",
        "save it with torch.save, which writes a zip archive",
    ),
    (rb"\x1f\x8b", "a gzip archive", "unpack it first: gunzip"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (rb"BZh[1-9]", "a bzip2 archive", "unpack it first: bunzip2"),
    (rb"\xfd7zXZ\x00", "an xz archive", "unpack it first: unxz"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first: unzstd"),
    (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "an LZ4 archive", "unpack it first: unlz4"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (
        rb"x[\x01\x5e\x9c\xda]|ZF0x",
        "a zlib stream, as joblib.dump(compress=...) writes",
        "if you trust it: joblib.load reads it, torch.save writes its arrays",
    ),
    (
        rb"(?s)(sys_info|pickle|tensors|storages)\0.{248,}ustar",
        "a tar archive that torch.save wrote before torch 0.1.10",
        "if you trust it, read it with torch.load and write it again with torch.save",
    ),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it first: tar -xf"),
    (rb"\x89PNG", "a PNG image", None),
    (rb"\xff\xd8\xff", "a JPEG image", None),
    (rb"%PDF-", "a PDF document", None),
    (
        rb"GGUF|lmgg|fmgg|tjgg",
        "a GGUF model",
        "transformers reads it: from_pretrained(FOLDER, gguf_file=NAME).save_pretrained(NEW)",
    ),
    (rb"\x89HDF\r\n", "an HDF5 file, as Keras writes", f"read it with h5py, {_ARRAYS}"),
    (rb"\x93NUMPY", "a NumPy array", "torch.from_numpy(numpy.load(FILE))  makes a tensor of it"),
    (rb"(?s).{4}TFL3", "a TFLite model", _BY_ONNX.replace("convert", "convert --tflite", 1)),
    (rb"(?s).{4}ET[0-9]{2}", "an ExecuTorch program", "export the state_dict of its source"),
    (rb"(?s).{4}ORTM", "an ONNX Runtime model (.ort)", "name the .onnx that it was made of"),
    (
        rb"\x08\x01\x12" + _LENGTH + rb"\x0a" + _LENGTH + rb"[\x12\x1a\x22\x2a]",
        "a TensorFlow SavedModel",
        _BY_ONNX,
    ),
    (
        rb"\x08[\x01-\x1f]\x12" + _LENGTH + rb"\x0a" + _LENGTH + rb"\x0a",
        "a Core ML model",
        f"read it with coremltools, {_ARRAYS}",
    ),
    (
        rb"\x08[\x01-\x1f](\x12[\x01-\x7f][ -~]|[\x1a\x3a\x42])",
        "an ONNX model",
        "onnx2torch.convert(FILE).state_dict()  gives its weights",
    ),
    (
        rb"\x0a" + _LENGTH + rb"\x0a" + _NAME + rb"\x12[\x01-\x7f][A-Z]\w",
        "a TensorFlow graph",
        _BY_ONNX,
    ),
    (
        rb"\x00\x00.\x08[\x01-\x7f].{0,2}\x1a\x02\x08\x01",
        "the index of a TensorFlow checkpoint",
        _OURS,
    ),
    (rb"\x12\x01\x00{6}", "MXNet parameters", f"read them with mxnet, {_ARRAYS}"),
    (
        rb"([\x81-\x8f]|\xde..|\xdf.{4})([\xa1-\xbf]|\xd9.)\w",
        "a MessagePack file, as Flax writes",
        f"read it with flax.serialization.msgpack_restore, {_ARRAYS}",
    ),
    (rb"\x7fELF", "a program", None),
    (rb'\s*\{\s*"', "a JSON file", None),
)


def foreign(name: str, head: bytes) -> FormatError:
    """An error that names the kind of a file that begins with `head`."""
    if not head:
        return FormatError(f"{name}: an empty file", hint="the download failed; try again")
    for pattern, what, hint in _KNOWN:
        if re.match(pattern, head, re.IGNORECASE):
            return FormatError(f"{name}: {what}", hint=hint)
    return FormatError(
        f"{name}: neither a torch file nor safetensors; it begins with {head[:8]!r}",
        hint="a damaged or truncated download can look like this too",
    )
