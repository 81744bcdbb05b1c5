"""Experts that one side has one by one, and the other as stacked tensors.

The tensors ``experts.0.up_proj.weight``, ``experts.1.up_proj.weight``, … become slices of one
tensor; two of them, such as gate and up, may be joined in each slice, and each slice may be
transposed. Shapes say what is possible, names choose; where both leave several ways, the view is
not sure.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from ckpt.infer.reading.view import View
from ckpt.infer.vocabulary import GATED
from ckpt.infer.words import Likeness, words_of
from ckpt.tensors import TensorEntry

_LAST = ("weight", "bias", "kernel")
_MOST_PARTS = 8  # of one expert
_CLEAR = 0.1  # by which the names of one way must be more alike than those of the next

Shape = tuple[int, ...]
Shapes = tuple[tuple[str, Shape], ...]  # by name, sorted
Entries = Sequence[TensorEntry]


@dataclass(frozen=True, slots=True)
class _Row:
    """The experts of one layer.

    Attributes:
        module: Above their numbers.
        size: How many there are.
        parts: The tensors of each, by their names below its number.
    """

    module: str
    size: int
    parts: Shapes


@dataclass(frozen=True, slots=True)
class _Stack:
    """How one stacked tensor is made.

    Attributes:
        name: Below its module.
        shape: Of the whole.
        parts: The names of the tensors that make up a slice, in order, below an expert's number.
        turned: Whether each slice is transposed.
        is_sure: Whether no other way is as likely.
    """

    name: str
    shape: Shape
    parts: tuple[str, ...]
    turned: bool
    is_sure: bool


def stacked(mine: Entries, theirs: Entries) -> Iterator[View]:
    """The experts of one side as the other has them stacked."""
    extra = Counter(e.shape for e in theirs) - Counter(e.shape for e in mine)
    extra_sizes = {shape[0] for shape in extra if len(shape) > 1}
    if not extra_sizes:
        return
    rows = [row for row in _rows(mine) if row.size in extra_sizes]
    modules = {*_modules([e for e in theirs if e.shape in extra])} if rows else set()
    entries = {entry.key: entry for entry in mine}
    ways: dict[tuple[int, Shapes], tuple[_Stack, ...]] = {}
    for row in rows:
        if (row.size, row.parts) not in ways:
            found = [way for module in modules if (way := _way(row, module))]
            ways[row.size, row.parts] = found[0] if len(found) == 1 else ()
        for stack in ways[row.size, row.parts]:
            yield _view(row, stack, entries)


def _rows(entries: Entries) -> Iterator[_Row]:
    """The modules whose children are numbered from 0 and have the same few tensors."""
    children: dict[str, dict[str, list[tuple[str, Shape]]]] = {}
    for entry in entries:
        parts = entry.key.split(".")
        for place, part in enumerate(parts[:-1]):
            if part.isdecimal() and place:
                inside = children.setdefault(".".join(parts[:place]), {}).setdefault(part, [])
                if len(inside) <= _MOST_PARTS:
                    inside.append((".".join(parts[place + 1 :]), entry.shape))
    for module, numbered in children.items():
        contents = {tuple(sorted(inside)) for inside in numbered.values()}
        if len(contents) == 1 < len(numbered) and {*numbered} == {*map(str, range(len(numbered)))}:
            (parts_of_all,) = contents
            if len(parts_of_all) <= _MOST_PARTS:
                yield _Row(module, len(numbered), parts_of_all)


def _modules(entries: Entries) -> Iterator[Shapes]:
    """What the modules have that may be stacked."""
    found: dict[str, list[tuple[str, Shape]]] = {}
    for entry in entries:
        module, _, name = entry.key.rpartition(".")
        if name in _LAST:
            module, _, before = module.rpartition(".")
            name = f"{before}.{name}"
        found.setdefault(module, []).append((name, entry.shape))
    yield from (tuple(sorted(module)) for module in found.values())


def _way(row: _Row, module: Shapes) -> tuple[_Stack, ...]:
    """How the experts make up all stacked tensors of a module; empty if they do not."""
    names = [*module]
    if any(len(shape) < 2 or shape[0] != row.size for _, shape in names):
        return ()
    found = [
        (_likeness(way, names), turned, way)
        for turned in (False, True)
        for way in _covers(names, dict(row.parts), turned=turned)
    ]
    if not found:
        return ()
    found.sort(key=lambda one: (-one[0], one[1]))
    clear = len(found) == 1 or found[0][0] - found[1][0] >= _CLEAR
    _, turned, way = found[0]
    return tuple(
        _Stack(
            name, shape, _in_order(parts), turned, clear and _is_spelled(name, parts, turned=turned)
        )
        for (name, shape), parts in zip(names, way, strict=True)
    )


def _covers(
    names: Sequence[tuple[str, Shape]], free: Mapping[str, Shape], *, turned: bool
) -> Iterator[list[tuple[str, ...]]]:
    """The ways to make the named tensors of the parts of one expert, without a part left over."""
    if not names:
        if not free:
            yield []
        return
    (_, (_, *inner)), rest = names[0], names[1:]
    wanted = tuple(inner[::-1] if turned else inner)
    alone = [(part,) for part, shape in free.items() if shape == wanted]
    pairs = [
        (one, other)
        for one, other in permutations(free, 2)
        if one < other
        and free[one][1:] == free[other][1:] == wanted[1:]
        and len(free[one]) == len(free[other]) == len(wanted)
        and free[one][0] + free[other][0] == wanted[0]
    ]
    for parts in (*alone, *pairs):
        left = {part: shape for part, shape in free.items() if part not in parts}
        yield from ([parts, *more] for more in _covers(rest, left, turned=turned))


def _likeness(way: Sequence[tuple[str, ...]], names: Sequence[tuple[str, Shape]]) -> float:
    """How alike the names of the stacked tensors and of their parts are, on average."""
    likeness = Likeness({})
    total = 0.0
    for (name, _), parts in zip(names, way, strict=True):
        whole = likeness.name(name, leaf=False)
        joint = likeness.name(".".join(_without_last(part) for part in parts), leaf=False)
        total += likeness.of_names(joint, whole)
    return total / len(names)


def _without_last(part: str) -> str:
    module, _, last = part.rpartition(".")
    return module if last in _LAST else part


def _in_order(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Parts that are joined, gate before up."""
    return tuple(sorted(parts, key=lambda part: (_ordinal(part), part)))


def _ordinal(part: str) -> int:
    words = (word for piece in part.split(".") for word in words_of(piece))
    return next((GATED[word] for word in words if word in GATED), 0)


def _is_spelled(name: str, parts: tuple[str, ...], *, turned: bool) -> bool:
    """Whether the name of a stacked tensor says which parts are joined in it.

    Transposed, they may also alternate, as in gpt-oss; nothing tells.
    """
    if len(parts) == 1:
        return True
    words = [GATED.get(word, 0) for piece in name.split(".") for word in words_of(piece)
             if word in GATED]  # fmt: skip
    return not turned and [_ordinal(part) for part in _in_order(parts)] == words


def _view(row: _Row, stack: _Stack, entries: Mapping[str, TensorEntry]) -> View:
    shapes = dict(row.parts)
    keys = tuple(
        f"{row.module}.{number}.{part}" for number in range(row.size) for part in stack.parts
    )
    seen = replace(
        entries[keys[0]], key=f"{row.module}.{stack.name}", shape=stack.shape, digest=None
    )
    joined = len(stack.parts) > 1
    return View(
        seen,
        keys,
        "stack",
        dims=(1, 0) if stack.turned and len(stack.shape) == 3 else (),
        sizes=tuple(shapes[part][0] for part in stack.parts) if joined else (),
        evidence="experts, stacked",
        is_sure=stack.is_sure,
    )
