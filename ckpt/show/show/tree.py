"""The modules of a checkpoint as a tree: `ckpt show --tree`.

A key's module is what stands before its last dot. Numbered modules beside each other that hold
the same are one line, `layers.{0..11}  12 ×`; the numbers of a line are those of all that it
stands for, so that they add up. A module that holds nothing but one other shares its line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckpt.ops.show import Shown
from ckpt.show.look.words import printable, size
from ckpt.show.show import head_data, head_text, tail_data
from ckpt.tensors import TensorEntry

# Deeper modules are not parted further: no model is that deep, and a hostile key may be.
DEPTH_LIMIT = 64
NARROWEST = 16  # columns to which a name is cut at most
_HEADERS = ("module", "keys", "elements", "size")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # an index; `01` is a name

Row = tuple[str, str, str, str]


@dataclass(slots=True)
class Module:
    """One module, with all that is in it; equal to what holds the same under another name.

    Attributes:
        name: Its last part, ``attn``; may be empty, for a key may be ``a..b``.
        keys: How many, those of the modules in it included; so are the next two.
        elements: Of all their tensors.
        nbytes: Likewise.
        own: What it holds itself: last part of the key, dtype and shape.
        modules: By name, in the order of the file.
    """

    name: str = field(compare=False)
    keys: int = 0
    elements: int = 0
    nbytes: int = 0
    own: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    modules: "dict[str, Module]" = field(default_factory=dict)

    def add(self, entry: TensorEntry) -> None:
        """Count one key of this module or of one in it."""
        self.keys += 1
        self.elements += entry.numel
        self.nbytes += entry.nbytes


def module_tree(entries: Sequence[TensorEntry]) -> Module:
    """The root, which has no name; its keys have no dot."""
    root = Module("")
    for entry in entries:
        path, dot, leaf = entry.key.rpartition(".")
        module = root
        module.add(entry)
        for name in path.split(".", DEPTH_LIMIT - 1) if dot else ():
            module = module.modules.setdefault(name, Module(name))
            module.add(entry)
        module.own.append((leaf, entry.dtype, entry.shape))
    return root


def tree_text(shown: Shown, *, width: int | None) -> str:
    """The totals, then a line for each module."""
    root = module_tree(shown.entries)
    rows = list(_rows(root, depth=0, times=1))
    if root.own:
        inner = root.modules.values()
        rows.insert(
            0,
            _row(
                "(no module)",
                root.keys - sum(each.keys for each in inner),
                root.elements - sum(each.elements for each in inner),
                root.nbytes - sum(each.nbytes for each in inner),
            ),
        )
    return f"{head_text(shown)}\n\n{_columns(rows, width)}"


def tree_data(shown: Shown) -> dict[str, Any]:
    """The same for JSON, where every module stands by itself."""
    modules = _data(module_tree(shown.entries))["modules"]
    return {**head_data(shown), "modules": modules, **tail_data(shown)}


def _data(module: Module) -> dict[str, Any]:
    return {
        "name": module.name,
        "keys": module.keys,
        "elements": module.elements,
        "size": module.nbytes,
        "modules": [_data(each) for each in module.modules.values()],
    }


@dataclass(slots=True)
class _Line:
    """Modules that hold the same: what to call them, the first of them, and how many they are."""

    name: str
    module: Module
    count: int = 1


def _rows(module: Module, *, depth: int, times: int) -> Iterator[Row]:
    """What stands below a module that itself stands for `times` modules."""
    for line in map(_joined, _folded(module)):
        inner, total = line.module, times * line.count
        many = f"  {line.count:,} ×" if line.count > 1 else ""
        name = "  " * depth + line.name + many
        yield _row(name, inner.keys * total, inner.elements * total, inner.nbytes * total)
        yield from _rows(inner, depth=depth + 1, times=total)


def _row(name: str, keys: int, elements: int, nbytes: int) -> Row:
    return name, f"{keys:,}", f"{elements:,}", size(nbytes)


def _joined(line: _Line) -> _Line:
    """With the lines below it as long as there is but one, and no key beside it."""
    while not line.module.own:
        below = _folded(line.module)
        if len(below) != 1:
            break
        only = below[0]
        line = _Line(f"{line.name}.{only.name}", only.module, line.count * only.count)
    return line


def _folded(module: Module) -> list[_Line]:
    """A line for each module in it; one for those whose numbers follow each other, if alike."""
    lines: list[_Line] = []
    first = last = -2  # the numbers of the last line
    for inner in _ordered(module):
        number = int(inner.name) if _NUMBER.fullmatch(inner.name) else -2
        if number == last + 1 and lines[-1].module == inner:
            lines[-1].count += 1
            between = ".." if number - first > 1 else ","
            lines[-1].name = f"{{{first}{between}{number}}}"
        else:
            lines.append(_Line(printable(inner.name) or "''", inner))
            first = number
        last = number
    return lines


def _ordered(module: Module) -> Iterator[Module]:
    """In the order of the file, but numbers by their value: some writers sort them as text."""
    numbered = [name for name in module.modules if _NUMBER.fullmatch(name)]
    by_value = iter(sorted(numbered, key=int))
    for name in module.modules:
        yield module.modules[next(by_value) if _NUMBER.fullmatch(name) else name]


def _columns(rows: Sequence[Row], width: int | None) -> str:
    """A table whose first column keeps its indentation, and is cut where the terminal ends."""
    columns = list(zip(_HEADERS, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        spare = width - sum(widths[1:]) - 2 * len(widths[1:])
        widths[0] = min(widths[0], max(spare, NARROWEST))
    rules = tuple("-" * each for each in widths)
    return "\n".join(_line(row, widths) for row in (_HEADERS, rules, *rows))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = row
    if len(name) > widths[0]:
        name = name[: widths[0] - 1] + "…"
    cells = [number.rjust(each) for number, each in zip(numbers, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *cells])
