"""Files that are no checkpoint that ckpt reads: what they are, told by how they begin.

Sources: the formats' own magic numbers; Git LFS specification, "The Pointer"; for torch's first
form `torch.serialization.legacy_load`.
"""

import re

from ckpt.errors import FormatError

# (how it begins, what it is, what to do)
_KNOWN: tuple[tuple[bytes, str, str | None], ...] = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git-LFS pointer, not the file itself",
        "git lfs pull  brings the file",
    ),
    (rb"\s*<(!doctype html|html|head|\?xml)", "an HTML page", "the download failed; try it again"),
    (
        rb"(?s)PK\x03\x04.{26}[^/]{1,200}\.npy",
        "a NumPy archive (.npz)",
        "torch.save({name: torch.from_numpy(array), ...}, NEW)  makes a checkpoint of it",
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
        "a torch.save file in its form before torch 0.1.10, a tar archive",
        "where you trust it, torch.load reads it yet, and torch.save writes what ckpt reads",
    ),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it first: tar -xf"),
    (rb"\x89PNG", "a PNG image", None),
    (rb"\xff\xd8\xff", "a JPEG image", None),
    (rb"%PDF-", "a PDF document", None),
    (rb"GGUF", "a GGUF model", "ckpt reads PyTorch's and safetensors' files"),
    (
        rb"\x89HDF\r\n",
        "an HDF5 file, as Keras writes",
        "ckpt reads PyTorch's and safetensors' files",
    ),
    (rb"\x93NUMPY", "a NumPy array", "ckpt reads PyTorch's and safetensors' files"),
    (rb"\x08[\x01-\x0b]\x12", "an ONNX model", "ckpt reads PyTorch's and safetensors' files"),
    (rb"\x7fELF", "a program", None),
    (rb'\s*\{\s*"', "a JSON file", None),
)


def foreign(name: str, head: bytes) -> FormatError:
    """An error that says what a file that begins with `head` is instead of a checkpoint."""
    if not head:
        return FormatError(f"{name}: an empty file", hint="the download failed; try it again")
    for pattern, what, hint in _KNOWN:
        if re.match(pattern, head, re.IGNORECASE):
            return FormatError(f"{name}: {what}", hint=hint)
    return FormatError(
        f"{name}: neither a torch file nor safetensors; it begins with {head[:8]!r}",
        hint="a damaged or cut download looks like this as well",
    )
