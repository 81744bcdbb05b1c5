"""Writes the content of a pickle again without what torch's weights_only refuses.

The new pickle has protocol 2, plain values, and tensors by their storages. Law: what is not
dropped keeps its value and its place; a dropped item of a list or tuple becomes None.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.find import Path, dotted
from ckpt.formats.pickle.globals import (
    NAMESPACE,
    NUMPY_SCALARS,
    PARAMETER,
    PATHS,
    TENSOR_V2,
    TENSOR_V3,
    torch_refuses,
)
from ckpt.formats.pickle.keys import plain_value
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque, Persistent
from ckpt.formats.pickle.tensors import plain_of, sizes_of, storage_of
from ckpt.formats.pickle.values import value_of
from ckpt.formats.pickle.writer import literal

_ORDERED = b"ccollections\nOrderedDict\n)R"
# Values of foreign classes that have a plain form.
_CONVERTED = {NAMESPACE, *NUMPY_SCALARS, *PATHS, "datetime.datetime", "datetime.date"}


@dataclass(frozen=True, slots=True)
class PlainPickle:
    """A pickle without opaque objects.

    Attributes:
        data: Its bytes.
        changed: The path and class of everything that was dropped or made plain.
        storages: The keys of the storages that it names.
    """

    data: bytes
    changed: tuple[str, ...]
    storages: frozenset[str]


def plain_pickle(
    root: object,
    without: frozenset[int] = frozenset(),
    instead: Mapping[int, object] | None = None,
    kept: frozenset[str] = frozenset(),
) -> PlainPickle:
    """Write the content of a pickle, in which `find` has found tensors.

    Args:
        root: Its root.
        without: Identities of nodes that are left out.
        instead: By identity, nodes in whose place others are written.
        kept: Classes that stay although torch refuses them; their objects keep their attributes.
    """
    writer = _Writer(without, instead or {}, kept)
    _, plain = writer.kept(root, ())
    writer.write(plain, ())
    data = b"".join([b"\x80\x02", *writer.parts, b"."])
    return PlainPickle(data, tuple(writer.changed), frozenset(writer.storages))


class _Writer:
    def __init__(
        self, without: frozenset[int], instead: Mapping[int, object], kept: frozenset[str]
    ) -> None:
        self._without = without
        self._instead = instead
        self._kept = kept
        self.parts: list[bytes] = []
        self.changed: list[str] = []
        self.storages: set[str] = set()
        # By identity, so that shared nodes stay shared; and by opcodes, of texts and globals.
        self._slots: dict[int | bytes, int] = {}

    def write(self, node: object, path: Path) -> None:
        node = self._instead.get(id(node), node)
        slot = self._slots.get(id(node))
        if slot is not None:
            self.parts.append(b"j" + struct.pack("<I", slot))
            return
        match node:
            case DictNode():
                self._dict(node, path)
            case list():
                self.parts.append(b"]")
                self._remember(node)
                self._items(node, path)
                self.parts.append(b"e")
            case tuple():
                self._items(node, path)
                self.parts.append(b"t")
            case Call():
                self._call(node, path)
                self._remember(node)
            case Global():
                self._name(node.name)
            case Persistent():
                self.storages.add(storage_of(node).key)
                self.write(node.id, path)
                self.parts.append(b"Q")
            case str():
                self._once(literal(node))
            case _:
                self.parts.append(_plain(node))

    def _remember(self, node: object) -> None:
        self._put(id(node))

    def _put(self, what: int | bytes) -> None:
        slot = self._slots[what] = len(self._slots)
        self.parts.append(b"r" + struct.pack("<I", slot))

    def _once(self, opcodes: bytes) -> None:
        """Push a text or a global, which are looked up from the second time on."""
        slot = self._slots.get(opcodes)
        if slot is None:
            self.parts.append(opcodes)
            self._put(opcodes)
        else:
            self.parts.append(b"j" + struct.pack("<I", slot))

    def kept(self, node: object, path: Path) -> tuple[bool, object]:
        """Whether torch opens the node, perhaps in a plain form."""
        name = node.function if isinstance(node, Call) else None
        if isinstance(node, Global | Opaque):
            name = node.name
        if name is None or name in self._kept:
            return True, node
        if not isinstance(node, Opaque) and not torch_refuses(name):
            return True, node
        plain = value_of(node) if isinstance(node, Call) and name in _CONVERTED else node
        self.changed.append(f"{dotted(path)} ({name}{'' if plain is node else ', made plain'})")
        return plain is not node, plain

    def _items(self, items: list[object] | tuple[object, ...], path: Path) -> None:
        """A mark, then all items."""
        self.parts.append(b"(")
        for index, item in enumerate(items):
            if id(item) in self._without:
                continue
            kept, plain = self.kept(item, (*path, index))
            self.write(plain if kept else None, (*path, index))

    def _dict(self, node: DictNode, path: Path) -> None:
        self.parts.append(_ORDERED if node.ordered else b"}")
        self._remember(node)
        self.parts.append(b"(")
        for key, value in node.items:
            here = (*path, key)
            if id(value) in self._without:
                continue
            if not isinstance(key, str) and not self._is_kept(key) and not _is_plain(key):
                self.changed.append(dotted(here))
                continue
            kept, plain = self.kept(value, here)
            if kept:
                self.write(key, here)
                self.write(plain, here)
        self.parts.append(b"u")
        if isinstance(node.state, DictNode):
            self.write(node.state, path)
            self.parts.append(b"b")

    def _call(self, node: Call, path: Path) -> None:
        if is_tensor(node):
            self._tensor(node, path)
            return
        if node.state is not None and not self._is_kept(node):
            self.changed.append(f"{dotted(path)} (attributes of {node.function})")
        self._name(node.function)
        self.write(node.arguments, path)
        self.parts.append(b"\x81" if self._is_kept(node) and not node.arguments else b"R")
        if node.state is not None and self._is_kept(node):
            self.write(node.state, path)
            self.parts.append(b"b")

    def _is_kept(self, node: object) -> bool:
        return isinstance(node, Call) and node.function in self._kept

    def _tensor(self, node: Call, path: Path) -> None:
        """A tensor in its usual form, without attributes of its own."""
        inner = plain_of(node, dotted(path))
        storage, offset, size, stride, grad, *more = (*inner.arguments, False)
        typed = inner.function != TENSOR_V3
        if node.function == PARAMETER:
            self._name(PARAMETER)
            self.parts.append(b"(")
        self._name(TENSOR_V2 if typed else TENSOR_V3)
        self.parts.append(b"(")
        for part in (storage, offset, sizes_of(size), sizes_of(stride), grad is True):
            self.write(part, path)
        self.parts.append(_ORDERED)
        if not typed:
            self.write(more[1], path)
        self.parts.append(b"tR")
        if node.function == PARAMETER:
            self.parts += [_plain(node.arguments[1] is True), _ORDERED, b"tR"]

    def _name(self, name: str) -> None:
        module, _, attribute = name.rpartition(".")
        self._once(f"c{module}\n{attribute}\n".encode())


def _is_plain(key: object) -> bool:
    try:
        plain_value(key)
    except ValueError:
        return False
    return True


def _plain(value: object) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return literal(value)
        case bytes():
            text = literal(value.decode("latin-1")) + literal("latin1")
            return b"c_codecs\nencode\n" + text + b"\x86R"
    raise TypeError(f"{type(value).__name__} is not a value of a pickle")
