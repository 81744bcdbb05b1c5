"""Renames keys in a pickle, opcode by opcode; every other byte stays.

A key is a text literal or a memo look-up of one. A renamed key becomes a literal of its
own. If a literal that changes was memoized, its other look-ups become literals of the old
text, so that a value with the same text keeps it. FRAME opcodes, whose byte counts would be
wrong, are optional and dropped.
"""

from collections.abc import Iterable, Mapping

from ckpt.formats.pickle.nodes import DictNode, Number, Text
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import texts_of
from ckpt.formats.pickle.writer import integer, literal

_FRAME_BYTES = 9  # the opcode and its 64-bit argument


Edit = tuple[int, int, bytes]  # start and end of the opcodes that are replaced, and by which


def number_edit(number: Number, new: int) -> Edit:
    """Replace an integer, at least 0, by another one."""
    return number.start, number.end, integer(new)


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
    renames = [(text, new) for text, new in renames if text != new]
    others = list(others)
    if not renames and not others:
        return data
    edits = {text.start: (text.end, literal(new)) for text, new in renames}
    changed = {text.origin for text, _ in renames if text.start == text.origin in edits}
    for text in read.looked_up:
        if text.origin in changed and text.start not in edits:
            edits[text.start] = (text.end, literal(text))
    edits |= {start: (end, new) for start, end, new in others}
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


def moved_modules(modules: list[str], new_keys: Mapping[str, str]) -> dict[str, str]:
    """The new path of each module: that of its tensors if they stay together, and unique."""
    targets = _moved_modules(new_keys)
    landed = {module: targets.get(module, module) for module in modules}
    while True:
        takers: dict[str, str] = {}
        for module, target in sorted(landed.items(), key=lambda pair: pair[0] != pair[1]):
            takers.setdefault(target, module)
        losers = [module for module, target in landed.items() if takers[target] != module]
        if not losers:
            return landed
        landed |= {module: module for module in losers}


def _moved_modules(new_keys: Mapping[str, str]) -> dict[str, str]:
    """Module path to new module path, for modules whose tensors all moved to one place.

    A module with tensors of its own follows them, whatever their new last part; one with
    modules only moves if all of them move together and keep their names.
    """
    own: dict[str, set[str | None]] = {}
    around: dict[str, set[str | None]] = {}
    for old, new in new_keys.items():
        module, target = old.rpartition(".")[0], new.rpartition(".")[0]
        own.setdefault(module, set()).add(target)
        outer: str | None = target
        while module:
            module, _, name = module.rpartition(".")
            if outer is not None:
                outer, _, new_name = outer.rpartition(".")
                outer = outer if name == new_name else None
            around.setdefault(module, set()).add(outer)
    return {
        module: target
        for module, targets in (around | own).items()
        for target in targets
        if len(targets) == 1 and target is not None
    }
