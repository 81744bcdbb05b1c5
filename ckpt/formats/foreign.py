"""Recognises files that ckpt does not read, by their first bytes, to say what they are.

Sources: the formats' own magic numbers; Git LFS specification, "The Pointer"; for torch's first
form `torch.serialization.legacy_load`.
"""

import re

from ckpt.errors import FormatError

_OURS = "ckpt reads PyTorch and safetensors files"
# (first bytes, kind of file, hint)
_KNOWN: tuple[tuple[bytes, str, str | None], ...] = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git-LFS pointer, not the file itself",
        "git lfs pull  brings the file",
    ),
    (rb"\s*<(!doctype html|html|head|\?xml)", "an HTML page", "the download failed; try again"),
    (
        rb"(?s)PK\x03\x04.{26}[^/]{1,200}\.npy",
        "a NumPy archive (.npz)",
        "make a checkpoint: torch.save({name: torch.from_numpy(array), ...}, NEW)",
    ),
    (rb"\xef\xbb\xbf", "text with a byte order mark", "save it again as UTF-8 without one"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive without the data.pkl of a torch file", None),
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
    (
        rb"(?s)(sys_info|pickle|tensors|storages)\0.{248,}ustar",
        "a tar archive that torch.save wrote before torch 0.1.10",
        "if you trust it, read it with torch.load and write it again with torch.save",
    ),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it first: tar -xf"),
    (rb"\x89PNG", "a PNG image", None),
    (rb"\xff\xd8\xff", "a JPEG image", None),
    (rb"%PDF-", "a PDF document", None),
    (rb"GGUF", "a GGUF model", _OURS),
    (rb"\x89HDF\r\n", "an HDF5 file, as Keras writes", _OURS),
    (rb"\x93NUMPY", "a NumPy array", _OURS),
    (rb"\x08[\x01-\x0b]\x12", "an ONNX model", _OURS),
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
