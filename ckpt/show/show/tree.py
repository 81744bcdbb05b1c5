"""`ckpt show --tree`: the modules of a checkpoint as a tree.

A key's module is the part before its last dot. Adjacent numbered modules with equal contents are
one line, `layers.{0..11}  12 ×`, with the totals of all of them, so that the lines add up. A
module that holds only one other module shares its line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckpt.ops.show import Shown
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import NARROWEST
from ckpt.show.look.words import printable, size
from ckpt.show.show import head_data, head_text, tail_data
from ckpt.tensors import TensorEntry

# Deeper modules are not split further: no model is that deep, but a hostile key may be.
DEPTH_LIMIT = 64
_HEADERS = ("module", "keys", "elements", "size")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # an index; `01` is a name

TreeRow = tuple[str, str, str, str]


@dataclass(slots=True)
class Module:
    """One module and all inside it; equal to a module of equal contents and another name.

    Attributes:
        name: Its last part, ``attn``; empty in a key like ``a..b``.
        keys: Their number, that of the elements and the bytes include the modules inside.
        own: The last part, dtype and shape of each of its own keys.
        modules: The modules inside by name, in file order.
    """

    name: str = field(compare=False)
    keys: int = 0
    elements: int = 0
    nbytes: int = 0
    own: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    modules: "dict[str, Module]" = field(default_factory=dict)

    def add(self, entry: TensorEntry) -> None:
        """Count one key of this module or of a module inside."""
        self.keys += 1
        self.elements += entry.numel
        self.nbytes += entry.nbytes


def module_tree(entries: Sequence[TensorEntry]) -> Module:
    """The root module; its own keys have no dot."""
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


def tree_text(shown: Shown, *, width: int | None = None) -> str:
    """The totals, then a line for each module."""
    root = module_tree(shown.entries)
    rows = list(_rows(root, depth=0, times=1))
    if root.own:
        alone = module_tree([entry for entry in shown.entries if "." not in entry.key])
        rows.insert(0, _tree_row("(no module)", alone))
    return f"{head_text(shown)}\n\n{_columns(rows, width)}"


def tree_data(shown: Shown) -> dict[str, Any]:
    """The same for JSON, without folding."""
    modules = _module_data(module_tree(shown.entries))["modules"]
    return {**head_data(shown), "modules": modules, **tail_data(shown)}


def _module_data(module: Module) -> dict[str, Any]:
    modules = [_module_data(inner) for inner in module.modules.values()]
    return {**fields(module, "name", "keys", "elements", "size=nbytes"), "modules": modules}


@dataclass(slots=True)
class Line:
    """Modules of equal contents: their common name, the first of them, and their number."""

    name: str
    module: Module
    count: int = 1


def _rows(module: Module, *, depth: int, times: int) -> Iterator[TreeRow]:
    """The lines below a module that represents `times` modules."""
    for line in map(with_only_child, lines_inside(module)):
        inner, total = line.module, times * line.count
        many = f"  {line.count:,} ×" if line.count > 1 else ""
        name = "  " * depth + line.name + many
        yield _tree_row(name, inner, total)
        yield from _rows(inner, depth=depth + 1, times=total)


def _tree_row(name: str, module: Module, times: int = 1) -> TreeRow:
    keys, elements = module.keys * times, module.elements * times
    return name, f"{keys:,}", f"{elements:,}", size(module.nbytes * times)


def with_only_child(line: Line) -> Line:
    """The line, extended by the line below it as long as there is only one and no key."""
    while not line.module.own:
        below = lines_inside(line.module)
        if len(below) != 1:
            break
        only = below[0]
        line = Line(f"{line.name}.{only.name}", only.module, line.count * only.count)
    return line


def lines_inside(module: Module) -> list[Line]:
    """A line for each module inside; consecutive numbers of equal contents share one."""
    lines: list[Line] = []
    first = last = -2  # the numbers of the last line
    for inner in _ordered(module):
        number = int(inner.name) if _NUMBER.fullmatch(inner.name) else -2
        if number == last + 1 and lines[-1].module == inner:
            lines[-1].count += 1
            between = ".." if number - first > 1 else ","
            lines[-1].name = f"{{{first}{between}{number}}}"
        else:
            lines.append(Line(printable(inner.name) or "''", inner))
            first = number
        last = number
    return lines


def _ordered(module: Module) -> Iterator[Module]:
    """In file order, but numbers by value: some writers sort them as text."""
    numbered = [name for name in module.modules if _NUMBER.fullmatch(name)]
    by_value = iter(sorted(numbered, key=int))
    for name in module.modules:
        yield module.modules[next(by_value) if _NUMBER.fullmatch(name) else name]


def _columns(rows: Sequence[TreeRow], width: int | None) -> str:
    """A table whose first column is truncated to the terminal and keeps its indentation.

    tabulate 0.9 would strip that.
    """
    columns = list(zip(_HEADERS, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        spare = width - sum(widths[1:]) - 2 * len(widths[1:])
        widths[0] = min(widths[0], max(spare, NARROWEST))
    rules = tuple("-" * each for each in widths)
    return "\n".join(_columns_of(row, widths) for row in (_HEADERS, rules, *rows))


def _columns_of(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = row
    if len(name) > widths[0]:
        name = name[: widths[0] - 1] + "…"
    cells = [number.rjust(each) for number, each in zip(numbers, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *cells])
