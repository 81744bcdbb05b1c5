"""Files of `torch.save` from before torch 1.6: five pickles, then the storages.

Source: torch 2.13, `torch.serialization` (`_legacy_save`, `_legacy_load`): a magic number, the
number of the protocol, a dict about the system, the value, and a list of storage keys; then each
storage: the number of its elements, in eight bytes, and its bytes. Law: every storage that
the value names follows exactly once, and nothing follows them.
"""

import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ckpt.dtypes import itemsize
from ckpt.errors import TRUNCATED, FormatError
from ckpt.formats.checkpoint import Checksum
from ckpt.formats.pickle.describe import brief
from ckpt.formats.pickle.nodes import DictNode
from ckpt.formats.pickle.plain import plain_pickle
from ckpt.formats.pickle.reader import PICKLE_LIMIT, ParsedPickle, read_first_pickle
from ckpt.formats.pickle.stack import TruncatedError
from ckpt.formats.pickle.tensors import Storage, Storages
from ckpt.formats.pickle.writer import storage_numel
from ckpt.formats.torch_read import expect_consistent, read_state
from ckpt.formats.torch_state import TorchFile
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Piece, Span, TensorEntry

NAME = "torch-legacy"
PROTOCOL = 1001
_SMALL_LIMIT = 4096  # bytes of each of the first three
_FIRST_READ = 1 << 16  # bytes; 600 keys
# The integer MAGIC_NUMBER as a pickle, of protocol 4 and 5 in a frame.
_MAGIC = re.compile(rb"(?s)\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.")


@dataclass(frozen=True, slots=True)
class TorchLegacyFile(TorchFile):
    """An opened file; a `ckpt.formats.checkpoint.Checkpoint`.

    Attributes:
        value: The range of the value's pickle.
        pickle: Its bytes.
        read: The same, parsed.
        places: The range of each storage's bytes.
    """

    source: ByteSource
    value: Span
    pickle: bytes
    read: ParsedPickle
    places: Mapping[str, Span]
    format: str = NAME
    written_by: str = "torch.save in its form before torch 1.6"

    @property
    def spans(self) -> Sequence[Span]:
        return self.state.spans

    @property
    def checksums(self) -> Sequence[Checksum]:
        return ()

    def storage_names(self) -> Collection[str]:
        return self.places

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new pickle of the value; the bytes before and after it are unchanged."""
        data = self.state.renamed(self.pickle, self.read, new_keys, name=self.source.name)
        end = self.value.end
        return [Span(0, self.value.offset), data, Span(end, self.source.size - end)]

    def plain(
        self,
        without: frozenset[int] = frozenset(),
        instead: Mapping[int, object] | None = None,
        more: Mapping[str, TensorEntry] | None = None,
    ) -> tuple[Layout, Sequence[str]]:
        """A new pickle of the value, and the storages that it names."""
        made, more = plain_pickle(self.read.root, without, instead), more or {}
        kept = {key: span for key, span in self.places.items() if key in made.storages}
        keys = plain_pickle([*kept, *more]).data
        storages: list[Piece] = [Span(at.offset - 8, at.nbytes + 8) for at in kept.values()]
        for entry in more.values():
            storages += [struct.pack("<q", storage_numel(entry)), entry]
        changed = (*self.read.modules, *made.changed)
        return [Span(0, self.value.offset), made.data, keys, *storages], changed


def recognises(head: bytes) -> bool:
    """The magic number, pickled as torch pickles it: without calls or a memo."""
    return _MAGIC.match(head) is not None


def read(source: ByteSource, *, inside: str | None = None) -> TorchLegacyFile:
    """Open a file of torch.save from before torch 1.6."""
    pickles = _Pickles(source)
    pickles.next("its magic number", _SMALL_LIMIT)
    _expect_known(source.name, pickles)
    value = pickles.next("its value", PICKLE_LIMIT, opaque=True)
    span, data = pickles.last, pickles.last_bytes
    keys = pickles.next("its list of storages", PICKLE_LIMIT)
    places: dict[str, Span] = {}
    storages = Storages(lambda storage: places[storage.key])
    expect_consistent(value, storages, name=source.name)
    places |= _locate(source, _storage_keys(source.name, keys.root), storages.by_key, pickles.end)
    where = f"{source.name}: its value"
    state = read_state(value, storages, source=source, container=NAME, where=where, inside=inside)
    return TorchLegacyFile(state, source, span, data, value, places)


class _Pickles:
    """Reads pickles one after the other.

    Attributes:
        end: The end of the last one.
        last: Its range.
        last_bytes: Its bytes.
    """

    def __init__(self, source: ByteSource) -> None:
        self.end = 0
        self.last, self.last_bytes = Span(0, 0), b""
        self._source = source

    def next(self, what: str, limit: int, *, opaque: bool = False) -> ParsedPickle:
        """Read the next pickle, which has at most `limit` bytes.

        Only its opcodes tell its length, so each try reads four times as many bytes.
        """
        nbytes = _FIRST_READ
        left = self._source.size - self.end
        while True:
            taken = min(nbytes, limit, left)
            data = self._source.read(self.end, taken)
            try:
                read = read_first_pickle(
                    data,
                    name=f"{self._source.name}: {what}",
                    opcode_limit=taken,  # each has a byte or more
                    opaque=opaque,
                )
            except TruncatedError as error:
                if taken == left:
                    raise FormatError(
                        f"{self._source.name}: truncated in {what}", hint=TRUNCATED
                    ) from error
                if taken == limit:
                    raise FormatError(
                        f"{self._source.name}: {what} has over {limit:,} bytes"
                    ) from error
                nbytes *= 4
                continue
            self.last, self.last_bytes = Span(self.end, read.nbytes), data[: read.nbytes]
            self.end += read.nbytes
            return read


def _expect_known(name: str, pickles: _Pickles) -> None:
    """Make sure that the protocol and the byte order are those that torch writes today."""
    protocol = pickles.next("its protocol", _SMALL_LIMIT).root
    if type(protocol) is not int or protocol != PROTOCOL:
        raise FormatError(f"{name}: protocol {brief(protocol)}, expected {PROTOCOL}")
    system = pickles.next("its system", _SMALL_LIMIT).root
    if not isinstance(system, DictNode):
        raise FormatError(f"{name}: lacks the description of the system that wrote it")
    for key, value in system.items:
        if key == "little_endian" and value is not True:
            raise FormatError(f"{name}: written by a big-endian machine, only little is read")


def _storage_keys(name: str, node: object) -> list[str]:
    items = node if isinstance(node, list) else [None]
    texts = dict.fromkeys(str(item) for item in items if isinstance(item, str))
    if len(texts) != len(items):
        raise FormatError(f"{name}: malformed list of storages")
    return list(texts)


def _locate(
    source: ByteSource, keys: Sequence[str], named: Mapping[str, Storage], position: int
) -> dict[str, Span]:
    """The place of each storage's bytes, which fill the rest of the file.

    Args:
        source: The file.
        keys: In file order.
        named: The storages as the value describes them, by key.
        position: Of the first storage.
    """
    if set(keys) != set(named):
        raise FormatError(f"{source.name}: its list of storages differs from those of its tensors")
    found = {}
    for key in keys:
        storage = named[key]
        begin, nbytes = position + 8, storage.numel * itemsize(storage.dtype)
        position = begin + nbytes
        if position > source.size:
            raise FormatError(
                f"{source.name}: storage {key} ends at byte {position:,}, the file at "
                f"{source.size:,}",
                hint=TRUNCATED,
            )
        stated = int.from_bytes(source.read(begin - 8, 8), "little", signed=True)
        if stated != storage.numel:
            raise FormatError(
                f"{source.name}: storage {key} has {stated:,} elements, its tensors expect "
                f"{storage.numel:,}"
            )
        found[key] = Span(begin, nbytes)
    if position != source.size:
        raise FormatError(f"{source.name}: {source.size - position:,} bytes after its last storage")
    return found
