"""Parts of keys as text: a part as it is, or ``{i}`` in place of the number of a block."""

import re

from ckpt.errors import RuleError
from ckpt.migrate.tree import Run

_NAMES = "ijklmnopqrstuvwxyz"  # of indices, from the outside in
_PART = re.compile(r"((?:[^{}]|\{\{|\}\})*)\{([a-z])(?:>=([0-9]{1,9}))?\}")


def part_text(part: str | Run, depth: int) -> str:
    """A part as text.

    Args:
        part: A name, or the run of blocks that a number is of.
        depth: How many numbers are before it in the key.
    """
    if isinstance(part, str):
        return _escaped(part)
    name = _NAMES[min(depth, len(_NAMES) - 1)]
    return _escaped(part.name) + (f"{{{name}>={part.start}}}" if part.start else f"{{{name}}}")


def part_of(text: str) -> str | Run:
    """The part that a text means.

    Raises:
        RuleError: It has a brace that is not one of an index.
    """
    index = _PART.fullmatch(text)
    if index:
        return Run(_unescaped(index[1]), int(index[3] or 0))
    left = text.replace("{{", "").replace("}}", "")
    if "{" in left or "}" in left:
        raise RuleError(f"{text!r:.120} is not an index", hint="write {i} or {i>=1}")
    return _unescaped(text)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _unescaped(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")
