"""Plain values that trainers save beside tensors, read from the calls that would make them.

Sources: numpy's pickles (`numpy/_core/src/multiarray`: `scalar`, `_reconstruct`, the state of a
dtype), CPython's `datetime` (`__reduce__`, "packed"), `pathlib` and `argparse`. Nothing is
called; a call in an unusual form gives no value and is only named.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256

from ckpt.formats.pickle.globals import (
    NAMESPACE,
    NUMPY_ARRAYS,
    NUMPY_BUFFERS,
    NUMPY_DTYPE,
    NUMPY_SCALARS,
    PATHS,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque

# numpy's kind and bytes of an element, in the struct module's letters.
_LETTERS = {
    **{"f2": "e", "f4": "f", "f8": "d", "b1": "?"},
    **{"i1": "b", "i2": "h", "i4": "i", "i8": "q"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}
_PATH_CHARACTERS = 1000


def value_of(call: Call) -> object:
    """The value that a call would make: a number, a text, or the DictNode of a namespace.

    Any other call is returned itself.
    """
    read = _READERS.get(call.function)
    try:
        found = read(call) if read else None
    except (ValueError, struct.error):
        found = None
    return call if found is None else found


def bytes_of(node: object) -> bytes | None:
    """Bytes, which protocol 2 writes as an encoding of Latin-1 text; None for other nodes."""
    match node:
        case bytes():
            return node
        case Call(function="_codecs.encode", arguments=(str() as text, "latin1")):
            return text.encode("latin-1")
        case Call(function="builtins.bytes", arguments=()):
            return b""
    return None


def digest_of(node: object, budget: list[int]) -> str | None:
    """SHA-256 of a value that its pickle holds whole; None if it has a storage, or is large.

    Args:
        node: May be shared, deep or in a circle.
        budget: How many more nodes may be hashed; counted down.
    """
    found, waiting = sha256(), [node]
    while waiting:
        parts: Sequence[object] = ()
        node = waiting.pop()
        given = node if (held := bytes_of(node)) is None else held
        match given:
            case None | bool() | float() | complex():
                own = repr(given)
            case int():
                own = f"int {int(given)}"
            case str() | bytes():
                own = repr(str(given) if isinstance(given, str) else given)
            case list() | tuple():
                own, parts = type(given).__name__, given
            case DictNode():
                own = f"dict {given.ordered}"
                parts = [*(each for item in given.items for each in item), given.state]
            case Call():
                own, parts = f"call {given.function}", [*given.arguments, given.state]
            case Opaque():
                own, parts = f"object {given.name}", [*given.given, given.state]
            case Global():
                own = f"global {given.name}"
            case _:
                return None
        found.update(f"{own} {len(parts)}\n".encode("utf-8", "backslashreplace"))
        budget[0] -= 1 + len(parts)
        if budget[0] < 0:
            return None
        waiting += reversed(parts)
    return f"sha256:{found.hexdigest()}"


def _scalar(call: Call) -> object:
    match call.arguments:
        case (Call(state=(_, _, _, _, _, nbytes, *_)) as dtype, data):
            order, kind = _dtype(dtype)
            held = bytes_of(data) or b""
            if kind in _LETTERS:
                return struct.unpack(order + _LETTERS[kind], held)[0]
            if nbytes == len(held) and kind == f"U{len(held) // 4}":
                return held.decode("utf-32-le" if order == "<" else "utf-32-be").rstrip("\0")
    return None


def _array(call: Call) -> str | None:
    match call.state:
        case (_, tuple() as shape, dtype, *_):
            return _of_numpy(dtype, shape)
    return None


def _buffer(call: Call) -> str | None:
    match call.arguments:
        case (_, dtype, tuple() as shape, *_):
            return _of_numpy(dtype, shape)
    return None


def _of_numpy(dtype: object, shape: tuple[object, ...]) -> str:
    sizes = " ".join(str(size) for size in shape if isinstance(size, int))
    return f"a numpy array of {_name(_dtype(dtype)[1])}, {sizes or 'a scalar'}"


def _dtype(node: object) -> tuple[str, str]:
    """Byte order and kind, e.g. ``<`` and ``f8``."""
    match node:
        case Call(
            function=function,
            arguments=(str() as kind, *_),
            state=(_, str() as order, *_),
        ) if function == NUMPY_DTYPE and (kind in _LETTERS or kind[:1] == "U"):
            return ("<" if order in "|=" else str(order)), str(kind)
    raise ValueError("not a dtype of numbers or texts")


def _name(kind: str) -> str:
    """E.g. ``float64`` for ``f8``."""
    word = {"f": "float", "i": "int", "u": "uint", "b": "bool", "U": "text"}[kind[0]]
    return word if word in ("bool", "text") else f"{word}{8 * int(kind[1:])}"


def _path(call: Call) -> str | None:
    parts = [str(part) for part in call.arguments if isinstance(part, str)]
    if len(parts) != len(call.arguments) or sum(map(len, parts)) > _PATH_CHARACTERS:
        return None
    root = parts.pop(0) if parts and parts[0].endswith(("/", "\\")) else ""
    return root + "/".join(parts)


def _datetime(call: Call) -> str | None:
    """Ten packed bytes; with a time zone it is only named."""
    match call.arguments:
        case (data,):
            *fields, micros = struct.unpack(">H5B3s", bytes_of(data) or b"")
            shown = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*fields)
            return shown + (f".{int.from_bytes(micros):06}" if any(micros) else "")
    return None


def _date(call: Call) -> str | None:
    match call.arguments:
        case (data,):
            return "{:04}-{:02}-{:02}".format(*struct.unpack(">H2B", bytes_of(data) or b""))
    return None


def _namespace(call: Call) -> DictNode | None:
    return call.state if isinstance(call.state, DictNode) and not call.arguments else None


_READERS: dict[str, Callable[[Call], object]] = {
    NAMESPACE: _namespace,
    "datetime.datetime": _datetime,
    "datetime.date": _date,
    **dict.fromkeys(NUMPY_SCALARS, _scalar),
    **dict.fromkeys(NUMPY_ARRAYS, _array),
    **dict.fromkeys(NUMPY_BUFFERS, _buffer),
    **dict.fromkeys(PATHS, _path),
}
