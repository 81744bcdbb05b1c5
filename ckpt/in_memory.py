"""A state_dict in memory, as the file that `torch.save` would write of it, without writing it.

torch itself pickles the value and names its storages; their bytes are read where they are, without
a copy. So whatever holds for files holds here: views, ties, extra state, what is refused and how.
Law: opened, it has the entries and the bytes of the file that `torch.save` writes.
"""

import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ckpt.errors import FormatError
from ckpt.formats.opaque import LaidOut
from ckpt.io import digest
from ckpt.io.rights import EVERYBODY, Rights
from ckpt.io.sources import CHUNK, ByteSource, Part
from ckpt.tensors import Span, with_versions

if TYPE_CHECKING:
    from torch import nn
    from torch.storage import UntypedStorage

STATE_DICT = "state_dict"  # the name of what has none of its own
_PROTOCOL = 2  # of pickles, torch's default
_ALIGNMENT = ".storage_alignment"  # a record of newer torch: that of the others
_FOLDER = "archive"  # torch's name for it where there is no file


def is_module(value: object) -> bool:
    """Whether something is a module of torch, which is not imported to tell."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def is_in_memory(value: object) -> bool:
    """Whether something is a state_dict or a module."""
    return isinstance(value, Mapping) or is_module(value)


def name_of(value: object) -> str:
    """What messages call it: ``state_dict``, or the class of a module."""
    return type(value).__name__ if is_module(value) else STATE_DICT


def state_of(value: "Mapping[str, Any] | nn.Module") -> Mapping[str, Any]:
    """The state_dict of a module, or the mapping itself."""
    if isinstance(value, Mapping):
        return value
    state: Mapping[str, Any] = value.state_dict()
    return state


def unsaved(
    value: "Mapping[str, Any] | nn.Module", *, name: str, file_name: str, summed: bool = False
) -> ByteSource:
    """The file that `torch.save` would write.

    Args:
        value: A state_dict, a training checkpoint, or a module, whose state_dict is meant.
        name: Its name in messages.
        file_name: What the file would be called.
        summed: Whether the file has checksums, for which all bytes are read once.

    Raises:
        FormatError: There is no torch tensor in it, or torch cannot save it.
    """
    from ckpt.formats.zip.writer import ALIGNMENT, NewMember, lay_out_archive

    records = _records(_plain(state_of(value)), name)
    memory = _Memory(name, file_name, [_bytes_of(data) for _, data in records])
    members = (
        NewMember(f"{_FOLDER}/{record}", span.nbytes, memory.crc32(span) if summed else 0, span)
        for (record, _), span in zip(records, memory.spans, strict=True)
    )
    stated = next((data for record, data in records if record == _ALIGNMENT), ALIGNMENT)
    return LaidOut(memory, lay_out_archive(members, alignment=int(stated)))


def _plain(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same as a mapping that every reader knows, with its `_metadata`."""
    if type(state) in (dict, OrderedDict):
        return state
    return with_versions(OrderedDict(state), getattr(state, "_metadata", None))


def _records(state: Mapping[str, Any], name: str) -> "list[tuple[str, Any]]":
    """The records of the archive, in order: texts, bytes, and storages on the CPU."""
    if (torch := sys.modules.get("torch")) is None:
        raise _no_tensors(state, name)
    for key, value in state.items():
        if hasattr(value, "device_mesh"):
            raise FormatError(
                f"{name}: {key}: a sharded tensor, {type(value).__name__}",
                hint="pass the result of its full_tensor()",
            )
    import pickle

    found: list[tuple[str, Any]] = []

    class Archive:
        def write_record(self, record: str, data: object, _nbytes: int) -> None:
            found.append((record, data))

    try:
        torch.serialization._save(state, Archive(), pickle, _PROTOCOL, False)
    except Exception as error:  # pickling runs the code of whatever object is in it
        text = " ".join(str(error).split())
        raise FormatError(f"{name}: torch cannot save it: {text}") from error
    is_tensor = (isinstance(value, torch.Tensor) for value in state.values())
    if not any(record.startswith("data/") for record, _ in found) and not any(is_tensor):
        raise _no_tensors(state, name)
    return [*found, ("version", "3\n")]


def _no_tensors(state: Mapping[str, Any], name: str) -> FormatError:
    arrays = any(type(value).__module__ == "numpy" for value in state.values())
    hint = "torch.from_numpy(array)  makes a tensor of an array" if arrays else None
    return FormatError(f"{name}: holds no torch tensors", hint=hint)


def _bytes_of(data: "str | bytes | UntypedStorage") -> tuple[memoryview, object]:
    """The memory of a record, and what keeps it alive."""
    if isinstance(data, str | bytes):
        data = data.encode("ascii") if isinstance(data, str) else data
        return memoryview(data), data
    nbytes = data.nbytes()
    if not nbytes:
        return memoryview(b""), data
    import ctypes

    at = ctypes.c_char * nbytes
    return memoryview(at.from_address(data.data_ptr())).cast("B"), data


class _Memory(ByteSource):
    """Pieces of memory, one after the other."""

    def __init__(
        self, name: str, file_name: str, pieces: Sequence[tuple[memoryview, object]]
    ) -> None:
        self.name = name
        self._pieces = pieces
        self._ends = list(accumulate(len(piece) for piece, _ in pieces))
        self.size = self._ends[-1]
        self.parts = (Part(file_name, 0, self.size),)

    @property
    def spans(self) -> Iterator[Span]:
        """The place of each piece."""
        for (piece, _), end in zip(self._pieces, self._ends, strict=True):
            yield Span(end - len(piece), len(piece))

    @property
    def rights(self) -> Rights:
        """As the umask allows: no file restricts it."""
        return EVERYBODY

    def crc32(self, span: Span) -> int:
        """The checksum of a range."""
        found = 0
        for chunk in self.stream(span.offset, span.nbytes):
            found = digest.crc32(chunk, found)
        return found

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The range in chunks; it lies in one piece."""
        if not nbytes:
            return
        at = bisect_right(self._ends, offset)
        piece = self._pieces[at][0]
        begin = offset - (self._ends[at] - len(piece))
        for first in range(begin, begin + nbytes, CHUNK):
            yield bytes(piece[first : min(first + CHUNK, begin + nbytes)])
