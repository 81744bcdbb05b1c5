"""New keys in a pickle, opcode by opcode; every other byte stays.

A key is a text literal or a memo look-up of one. What is renamed becomes a literal of its
own. Where a literal that changes was memoized, its other look-ups become literals of the old
text, so that a value that happens to be the same text keeps it. FRAME opcodes, which would
count bytes that are no longer so many, are optional and dropped.
"""

import struct
from collections.abc import Mapping as MappingOf

from ckpt.formats.pickle_nodes import Mapping, Text
from ckpt.formats.pickle_reader import Read
from ckpt.formats.pickle_tensors import texts_of

_FRAME_BYTES = 9  # the opcode and its 64-bit argument


def rename_texts(data: bytes, read: Read, renames: list[tuple[Text, str]]) -> bytes:
    """The pickle with some of its texts replaced, each just where it stands.

    Args:
        data: The pickle.
        read: What it was read as.
        renames: Texts of `read`, and what shall stand in their place.
    """
    edits = {text.start: (text.end, _literal(new)) for text, new in renames if text != new}
    changed = {text.origin for text, _ in renames if text.start == text.origin in edits}
    for text in read.looked_up:
        if text.origin in changed and text.start not in edits:
            edits[text.start] = (text.end, _literal(text))
    edits |= {start: (start + _FRAME_BYTES, b"") for start in read.frames}
    parts, position = [], 0
    for start in sorted(edits):
        end, replacement = edits[start]
        parts += [data[position:start], replacement]
        position = end
    return b"".join([*parts, data[position:]])


def key_renames(state_dict: Mapping, new_keys: MappingOf[str, str]) -> list[tuple[Text, str]]:
    """What changes in a state_dict's own keys."""
    return [(key, new_keys[key]) for key in texts_of(state_dict) if key in new_keys]


def module_renames(metadata: Mapping, new_keys: MappingOf[str, str]) -> list[tuple[Text, str]]:
    """What changes in `_metadata`: a module follows its tensors where they stay together.

    Without it a module would lose its version, and a BatchNorm that lacks
    `num_batches_tracked` would load in silence.
    """
    modules = _moved_modules(new_keys)
    texts = list(texts_of(metadata))
    renames = [(text, modules[text]) for text in texts if text in modules]
    landed = [modules.get(text, text) for text in texts]
    return renames if len(set(landed)) == len(landed) else []


def _moved_modules(new_keys: MappingOf[str, str]) -> dict[str, str]:
    """Module path to new module path, for those whose tensors all moved alike."""
    moved: dict[str, str | None] = {}
    for old, new in new_keys.items():
        old_parts, new_parts = old.split("."), new.split(".")
        # Common last parts are what hangs under the module; peel them off one by one.
        while len(old_parts) > 1 and len(new_parts) > 1 and old_parts[-1] == new_parts[-1]:
            old_parts.pop()
            new_parts.pop()
            module, target = ".".join(old_parts), ".".join(new_parts)
            if moved.setdefault(module, target) != target:
                moved[module] = None
    return {module: target for module, target in moved.items() if target is not None}


def _literal(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data
