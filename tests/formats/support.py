"""What the tests of the formats share: sources in memory, and files made by their writers."""

import ctypes
import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.stream import tensor_bytes, write_layout
from ckpt.io.rights import EVERYBODY, Rights
from ckpt.io.sources import ByteSource, Part
from ckpt.tensors import Layout


class Memory(ByteSource):
    """A source in memory that notes what was read of it, and reads in small chunks."""

    def __init__(self, data: bytes, name: str = "file") -> None:
        self.data, self.name, self.size = data, name, len(data)
        self.parts = (Part(name, 0, len(data)),)
        self.reads: list[tuple[int, int]] = []

    @property
    def rights(self) -> Rights:
        return EVERYBODY

    def read(self, offset: int, nbytes: int) -> bytes:
        assert offset >= 0
        assert nbytes >= 0
        assert offset + nbytes <= len(self.data), "reads past the end of the file"
        self.reads.append((offset, nbytes))
        return self.data[offset : offset + nbytes]

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        data = self.read(offset, nbytes)
        for first in range(0, nbytes, 1000):
            yield data[first : first + 1000]


class Zeros(Memory):
    """A file of zeros, of any size."""

    def read(self, offset: int, nbytes: int) -> bytes:
        self.reads.append((offset, nbytes))
        return bytes(nbytes)

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        yield self.read(offset, nbytes)


# Of a tensor: dtype, shape, contiguous bytes.
Contents = dict[str, tuple[str, tuple[int, ...], bytes]]


def saved(value: object, **options: Any) -> bytes:
    """The file that `torch.save` writes; its folder is called ``archive``."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def opened(data: bytes, inside: str | None = None) -> Checkpoint:
    return open_checkpoint(Memory(data), inside=inside)


def written(layout: Layout, checkpoint: Checkpoint) -> bytes:
    out = io.BytesIO()
    write_layout(layout, checkpoint.source, out)
    return out.getvalue()


def renamed(data: bytes, new_keys: Mapping[str, str], inside: str | None = None) -> bytes:
    checkpoint = opened(data, inside)
    return written(checkpoint.renamed(new_keys), checkpoint)


def contents(checkpoint: Checkpoint) -> Contents:
    return {
        entry.key: (
            entry.dtype,
            entry.shape,
            b"".join(tensor_bytes(checkpoint.source, entry)),
        )
        for entry in checkpoint.entries
    }


def expected(state_dict: Mapping[str, torch.Tensor]) -> Contents:
    """The same of tensors in memory, as torch has them."""
    return {
        key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw(tensor))
        for key, tensor in state_dict.items()
    }


def raw(tensor: torch.Tensor) -> bytes:
    """The contiguous bytes of a tensor."""
    whole = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    storage = whole.untyped_storage()
    return ctypes.string_at(storage.data_ptr(), storage.nbytes()) if storage.nbytes() else b""


def loaded(data: bytes, **options: Any) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True, **options)


def torch_file(pickle: bytes, storages: Mapping[str, bytes] | None = None, **small: bytes) -> bytes:
    """A zip container around any pickle; a `_` in the name of a small record means a dot."""
    out = io.BytesIO()
    records = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n"}
    records |= {name.replace("_", ".", 1): data for name, data in small.items()}
    records |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()
