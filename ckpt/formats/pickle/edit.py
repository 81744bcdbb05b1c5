"""Renames keys in a pickle, opcode by opcode; every other byte stays.

A key is a text literal or a memo look-up of one. A renamed key becomes a literal of its
own. If a literal that changes was memoized, its other look-ups become literals of the old
text, so that a value with the same text keeps it. FRAME opcodes, whose byte counts would be
wrong, are optional and dropped.
"""

from collections.abc import Iterable, Iterator, Mapping

from ckpt.errors import FormatError
from ckpt.formats.naming.modules import moved_modules
from ckpt.formats.pickle.nodes import DictNode, Number, Text
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import texts_of
from ckpt.formats.pickle.writer import integer, literal

_FRAME_BYTES = 9  # the opcode and its 64-bit argument
_MEMO_BYTES = {b"q": 2, b"r": 5, b"\x94": 1}  # of the opcodes that note a text
_INTEGER_BYTES = {b"N": 1, b"K": 2, b"M": 3, b"J": 5}
_LONG = b"\x8a"  # an integer, behind the number of its bytes
_SET_ONE = b"s"  # the opcode that ends a mapping of one item


Edit = tuple[int, int, bytes]  # start and end of the opcodes that are replaced, and by which


def number_edit(number: Number, new: int) -> Edit:
    """Replace an integer, at least 0, by another one."""
    return number.start, number.end, integer(new)


def item_edits(data: bytes, mapping: DictNode, new: Mapping[str, int | None]) -> Iterator[Edit]:
    """Give items of a mapping of numbers other values; items that it lacks follow its last one.

    Raises:
        FormatError: A value is not a small number.
    """
    places = {str(text): _value_after(data, text) for text in texts_of(mapping)}
    if not places:
        raise FormatError("an empty mapping")
    written = {name: data[start:end] for name, (start, end) in places.items()}
    last = next(reversed(places))
    ends = places[last][1]
    between = _SET_ONE if data[ends : ends + 1] == _SET_ONE else b""
    for name, value in new.items():
        pushed = b"N" if value is None else integer(value)
        if name in places:
            written[name] = pushed + written[name][places[name][1] - places[name][0] :]
        elif value is not None:
            written[last] += between + literal(name) + pushed
    for name, (start, end) in places.items():
        if written[name] != data[start:end]:
            yield start, end, written[name]


def _value_after(data: bytes, key: Text) -> tuple[int, int]:
    """The start and end of the opcode that pushes the integer behind a key."""
    start = key.end + _MEMO_BYTES.get(data[key.end : key.end + 1], 0)
    opcode = data[start : start + 1]
    nbytes = 2 + data[start + 1] if opcode == _LONG else _INTEGER_BYTES.get(opcode)
    if nbytes is None:
        raise FormatError(f"{key} is not a small number")
    return start, start + nbytes


def rename_texts(
    data: bytes, read: ParsedPickle, renames: list[tuple[Text, str]], others: Iterable[Edit] = ()
) -> bytes:
    """The pickle with some of its texts replaced, at their own places only.

    Args:
        data: The pickle.
        read: The same, parsed.
        renames: Texts of `read`, each with its new text.
        others: Further edits, at other places.
    """
    edits = {text.start: (text.end, literal(new)) for text, new in renames if text != new}
    for text in read.looked_up:
        if text.origin in edits and text.start not in edits:
            edits[text.start] = (text.end, literal(text))
    edits |= {start: (end, new) for start, end, new in others}
    if not edits:
        return data
    edits |= {start: (start + _FRAME_BYTES, b"") for start in read.frames}
    parts, position = [], 0
    for start in sorted(edits):
        end, replacement = edits[start]
        parts += [data[position:start], replacement]
        position = end
    return b"".join([*parts, data[position:]])


def key_renames(state_dict: DictNode, new_keys: Mapping[str, str]) -> list[tuple[Text, str]]:
    """The keys of a state_dict that change, each with its new name."""
    return [(key, new_keys[key]) for key in texts_of(state_dict) if key in new_keys]


def module_renames(metadata: DictNode, new_keys: Mapping[str, str]) -> list[tuple[Text, str]]:
    """The modules in `_metadata` that change: a module follows its tensors if they stay together.

    Otherwise a module would lose its version, and a BatchNorm without
    `num_batches_tracked` would load silently. A module whose new path is another's stays.
    """
    texts = list(texts_of(metadata))
    landed = moved_modules([str(text) for text in texts], new_keys)
    return [(text, landed[text]) for text in texts if landed[text] != text]
