"""The tensors of a version as a tree that folds; equal numbered modules are one line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ckpt.show.look.words import count, printable, shape, size
from ckpt.show.show.tree import Module, lines_inside, module_tree, with_only_child
from ckpt.tensors import TensorEntry

_OPEN = 40  # a tree of fewer keys is not folded
_MOST_INSIDE = 3000  # keys of one module that are listed


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A module or a tensor.

    Attributes:
        name: Its name below the line above.
        path: Its whole name.
        note: Its totals, or its shape, dtype and size.
        times: How many equal modules it represents.
        open: Whether it is unfolded at first.
        inside: What it holds; nothing for a tensor.
    """

    name: str
    path: str
    note: str
    times: int = 1
    open: bool = False
    inside: "Sequence[TreeLine]" = field(default=())


def tree_lines(entries: Sequence[TensorEntry]) -> list[TreeLine]:
    """The lines of the root."""
    return _lines(module_tree(entries), "", is_open=len(entries) < _OPEN)


def _lines(module: Module, path: str, *, is_open: bool) -> list[TreeLine]:
    found = []
    for leaf, dtype, dimensions in module.own[:_MOST_INSIDE]:
        nbytes = size(TensorEntry(leaf, dtype, dimensions).nbytes)
        found.append(TreeLine(leaf, path + leaf, f"{shape(dimensions)} · {dtype} · {nbytes}"))
    if (left := len(module.own) - _MOST_INSIDE) > 0:
        found.append(TreeLine("…", path, count(left, "more key")))
    for line in map(with_only_child, lines_inside(module)):
        inner, times = line.module, line.count
        keys, nbytes = inner.keys * times, size(inner.nbytes * times)
        note = f"{count(keys, 'key')} · {inner.elements * times:,} elements · {nbytes}"
        below = _lines(inner, f"{path}{line.name}.", is_open=is_open)
        found.append(TreeLine(printable(line.name), path, note, times, is_open, below))
    return found
