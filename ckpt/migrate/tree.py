"""The keys of a state_dict as a tree of their dotted parts, with shapes at its ends."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ckpt.tensors import TensorEntry

# A part that ends in a number, as Python writes it: ``12``, ``layer_3``.
_NUMBERED = re.compile("(.*?)(0|[1-9][0-9]{0,8})", re.DOTALL)


@dataclass(slots=True)
class Branch:
    """A part of keys.

    Attributes:
        shape: Of the tensor whose key ends here; None if none does.
        children: The parts that follow, in order.
    """

    shape: tuple[int, ...] | None = None
    children: "dict[str, Branch]" = field(default_factory=dict)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that end here or below, in the order of the tree."""
        if self.shape is not None:
            yield prefix
        for part, child in self.children.items():
            yield from child.keys(f"{prefix}.{part}" if prefix else part)


def tree_of(entries: Iterable[TensorEntry]) -> Branch:
    """The tree of the keys of a state_dict."""
    root = Branch()
    for entry in entries:
        at = root
        for part in entry.key.split("."):
            below = at.children.get(part)
            if below is None:
                below = at.children[part] = Branch()
            at = below
        at.shape = entry.shape
    return root


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks that are alike, numbered one after the other.

    Attributes:
        name: What is before their numbers: nothing, or ``layer_``.
        start: The first number.
    """

    name: str
    start: int

    def part(self, number: int) -> str:
        """The part of keys that names one block, the first being 0."""
        return f"{self.name}{self.start + number}"


def run_of(part: str) -> Run | None:
    """The run that begins with a part; None if it has no number at its end."""
    match = _NUMBERED.fullmatch(part)
    if match is None or match[1][-1:].isdecimal():  # 007
        return None
    return Run(match[1], int(match[2]))
