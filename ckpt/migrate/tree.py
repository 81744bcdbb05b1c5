"""The keys of a state_dict as a tree of their dotted parts, with shapes at its ends."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ckpt.tensors import TensorEntry

Shape = tuple[int, ...]
# A part that ends in a number, as Python writes it: ``12``, ``layer_3``.
_NUMBERED = re.compile("(.*?)(0|[1-9][0-9]{0,8})", re.DOTALL)


@dataclass(slots=True)
class Branch:
    """A part of keys.

    Attributes:
        shape: Of the tensor whose key ends here; None if none does.
        children: The parts that follow, in order.
        matched: Schemas that it is known to match, by their `id`.
    """

    shape: tuple[int, ...] | None = None
    children: "dict[str, Branch]" = field(default_factory=dict)
    matched: dict[int, object] = field(default_factory=dict, repr=False, compare=False)

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


def regrown(
    tree: Branch, gone: Iterable[Sequence[str]], added: Iterable[tuple[Sequence[str], Shape]]
) -> Branch:
    """A tree without some keys and with others; it shares the branches where neither are.

    Args:
        tree: The tree; it does not change.
        gone: The parts of each key.
        added: The parts of each key, and its shape.
    """
    made = Branch(tree.shape, dict(tree.children))
    below: dict[str, tuple[list[Sequence[str]], list[tuple[Sequence[str], Shape]]]] = {}
    for parts in gone:
        if parts:
            below.setdefault(parts[0], ([], []))[0].append(parts[1:])
        else:
            made.shape = None
    for parts, shape in added:
        if parts:
            below.setdefault(parts[0], ([], []))[1].append((parts[1:], shape))
        else:
            made.shape = shape
    for part, (less, more) in below.items():
        child = regrown(made.children.get(part) or Branch(), less, more)
        if child.shape is None and not child.children:
            made.children.pop(part, None)
        else:
            made.children[part] = child
    return made


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
