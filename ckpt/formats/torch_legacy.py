"""Files of `torch.save` from before torch 1.6: five pickles, then the storages.

Source: torch 2.13, `torch.serialization` (`_legacy_save`, `_legacy_load`): a magic number, the
number of the protocol, a dict about the system, the value, and a list of storage keys; for
each of these the number of its elements, in eight bytes, and its bytes. Law: every storage that
the value names follows exactly once, and nothing follows them.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError
from ckpt.formats.checkpoint import Checksum
from ckpt.formats.pickle.describe import brief
from ckpt.formats.pickle.machine import CutShortError
from ckpt.formats.pickle.nodes import DictNode, ListNode
from ckpt.formats.pickle.reader import ParsedPickle, read_first_pickle
from ckpt.formats.pickle.tensors import Storage, storage_of
from ckpt.formats.torch_state import TorchState, read_state
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Span, TensorEntry

NAME = "torch-legacy"
PROTOCOL = 1001
PICKLE_LIMIT = 1 << 28  # bytes of the value
_SMALL_LIMIT = 4096  # bytes of each of the first three
_FIRST_READ = 1 << 16  # bytes; 600 keys
# The integer MAGIC_NUMBER as a pickle, of protocol 4 and 5 in a frame.
_MAGIC = re.compile(rb"(?s)\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.")
_OPCODES, _OPCODES_A_KB = 1_000_000, 1000  # an opcode has a byte or more


@dataclass(frozen=True, slots=True)
class TorchLegacyFile:
    """An opened file; see `ckpt.formats.checkpoint.Checkpoint`.

    Attributes:
        value: Where the pickle of the value stands.
    """

    source: ByteSource
    value: Span
    pickle: bytes
    read: ParsedPickle
    state: TorchState
    format: str = NAME
    written_by: str = "torch.save in its form before torch 1.6"

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The state_dict."""
        return self.state.entries

    @property
    def spans(self) -> Sequence[Span]:
        """All tensors."""
        return self.state.spans

    @property
    def checksums(self) -> Sequence[Checksum]:
        """None: the format has no checksums."""
        return ()

    @property
    def rest(self) -> Mapping[str, Any]:
        """What is beside the tensors of the state_dict."""
        return self.state.rest

    @property
    def aliases(self) -> Sequence[str]:
        """None."""
        return ()

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """See `TorchState.also_named`."""
        return self.state.also_named(keys)

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new pickle of the value between what stands before and after it."""
        data = self.state.renamed(self.pickle, self.read, new_keys, name=self.source.name)
        end = self.value.end
        return [Span(0, self.value.offset), data, Span(end, self.source.size - end)]


def recognises(head: bytes) -> bool:
    """The magic number, pickled as torch pickles it: by no call, and out of no memo."""
    return _MAGIC.match(head) is not None


def read(source: ByteSource, *, inside: str | None = None) -> TorchLegacyFile:
    """See `ckpt.formats.checkpoint.Format.read`."""
    pickles = _Pickles(source)
    pickles.next("its magic number", _SMALL_LIMIT)
    _expect_known(source.name, pickles)
    value = pickles.next("its value", PICKLE_LIMIT)
    span, data = pickles.last, pickles.last_bytes
    keys = pickles.next("its list of storages", PICKLE_LIMIT)
    named = _storages(source.name, value)
    storages = _locate(source, _texts(source.name, keys.root), named, pickles.end)

    def find(storage: Storage) -> Span:
        return storages[storage.key]

    state = read_state(
        value, find, name=source.name, where=f"{source.name}: its value", inside=inside
    )
    return TorchLegacyFile(source, span, data, value, state)


class _Pickles:
    """Pickles one after the other.

    Attributes:
        end: Where the last one that was read ends.
        last: Where it stands.
        last_bytes: Its bytes.
    """

    def __init__(self, source: ByteSource) -> None:
        self.end = 0
        self.last, self.last_bytes = Span(0, 0), b""
        self._source = source

    def next(self, what: str, limit: int) -> ParsedPickle:
        """Read the next pickle, of `limit` bytes at most; how long it is, it says itself.

        Each try reads four times as many bytes as the one before.
        """
        nbytes = _FIRST_READ
        left = self._source.size - self.end
        while True:
            some = min(nbytes, limit, left)
            data = self._source.read(self.end, some)
            try:
                read = read_first_pickle(
                    data,
                    name=f"{self._source.name}: {what}",
                    opcode_limit=_OPCODES + _OPCODES_A_KB * (some // 1024),
                )
            except CutShortError as error:
                if some == left:
                    raise FormatError(
                        f"{self._source.name}: cut short in {what}",
                        hint="the file was cut short; fetch it again",
                    ) from error
                if some == limit:
                    raise FormatError(
                        f"{self._source.name}: {what} has more than {limit:,} bytes"
                    ) from error
                nbytes *= 4
                continue
            self.last, self.last_bytes = Span(self.end, read.nbytes), data[: read.nbytes]
            self.end += read.nbytes
            return read


def _expect_known(name: str, pickles: _Pickles) -> None:
    """The protocol and the byte order are those that torch writes today."""
    protocol = pickles.next("its protocol", _SMALL_LIMIT).root
    if type(protocol) is not int or protocol != PROTOCOL:
        raise FormatError(f"{name}: protocol {brief(protocol)}, {PROTOCOL} was expected")
    system = pickles.next("its system", _SMALL_LIMIT).root
    if not isinstance(system, DictNode):
        raise FormatError(f"{name}: says nothing of the system that wrote it")
    for key, value in system.items:
        if key == "little_endian" and value is not True:
            raise FormatError(f"{name}: written by a big-endian machine; only little is read")


def _storages(name: str, value: ParsedPickle) -> dict[str, Storage]:
    """The storages that a pickle names, by key; each of one kind and size."""
    found: dict[str, Storage] = {}
    for persistent in value.persistents:
        try:
            storage = storage_of(persistent)
        except ValueError as error:
            raise FormatError(f"{name}: {error}") from error
        whole = storage._replace(view=None)
        if found.setdefault(storage.key, whole) != whole:
            raise FormatError(f"{name}: storage {storage.key} is of two kinds or sizes")
    return found


def _texts(name: str, node: object) -> list[str]:
    items = node.items if isinstance(node, ListNode) and node.kind == "list" else [None]
    texts = [str(item) for item in items if isinstance(item, str)]
    if len(texts) != len(items) or len(set(texts)) != len(texts):
        raise FormatError(f"{name}: its list of storages is none")
    return texts


def _locate(
    source: ByteSource, keys: Sequence[str], named: Mapping[str, Storage], position: int
) -> dict[str, Span]:
    """Where each storage's bytes are; they fill the rest of the file.

    Args:
        source: The file.
        keys: In the order in which they lie.
        named: What the value says of each.
        position: Where the first one begins.
    """
    if set(keys) != set(named):
        raise FormatError(f"{source.name}: lists other storages than its tensors name")
    found = {}
    for key in keys:
        storage = named[key]
        begin, nbytes = position + 8, storage.numel * itemsize(storage.dtype)
        position = begin + nbytes
        if position > source.size:
            raise FormatError(
                f"{source.name}: storage {key} ends at byte {position:,}, the file at "
                f"{source.size:,}",
                hint="the file was cut short; fetch it again",
            )
        stated = int.from_bytes(source.read(begin - 8, 8), "little", signed=True)
        if stated != storage.numel:
            raise FormatError(
                f"{source.name}: storage {key} has {stated:,} elements, its tensors say "
                f"{storage.numel:,}"
            )
        found[key] = Span(begin, nbytes)
    if position != source.size:
        raise FormatError(f"{source.name}: {source.size - position:,} bytes after its last storage")
    return found
