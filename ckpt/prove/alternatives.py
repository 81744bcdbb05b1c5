"""Mappings near a plan: the mistakes that keep every shape and that people make.

Two siblings swapped (a query and a key, two norms), blocks in reversed order, a square matrix
transposed, halves or thirds of a fused tensor in another order, the rows of queries and keys in
the other layout of a rotary embedding. First in all blocks at once, then in one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import gcd

from ckpt.prove.result import Alternative
from ckpt.rules.expressions import (
    Expression,
    Joined,
    Reshaped,
    permuted,
    split,
    transposed,
)

MOST_TRIES = 100  # each is one run of the new model
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_MOST_CHILDREN = 12  # of one module, that are swapped in pairs
_MOST_BLOCKS = 4  # likewise of a list
_SIZES = (256, 192, 128, 112, 96, 80, 64, 48, 40, 32, 24, 16, 12, 8, 6, 4)  # of a head

Made = Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class _Change:
    """A candidate: keys whose tensors move, or change."""

    text: str
    moves: Mapping[str, str]
    verb: str = ""
    keys: tuple[str, ...] = ()
    size: int = 0


def alternatives(made: Made, near: str | None) -> Iterator[Alternative]:
    """Mappings near a plan, those near a module first; at most `MOST_TRIES`.

    Args:
        made: How the plan makes every tensor of the result.
        near: The module of the new model where outputs first differ.
    """
    changes = [*_swaps(made), *_reversals(made), *_operations(made)]
    # The first difference shows behind the mistake: its block is where to look first.
    block = template(near or "").rpartition(".*.")[0]
    wide = [it for it in changes if len(_blocks(it)) > 1 or not _numbered(it)]
    narrow = [it for change in changes for it in _in_one_block(change)]
    ordered = sorted(wide, key=lambda it: not _is_in(it, block))
    ordered += sorted(narrow, key=lambda it: not _touches(it, near or ""))
    for change in islice(ordered, MOST_TRIES):
        yield Alternative(
            change.text,
            change.moves,
            change.verb,
            change.keys,
            change.size,
            {key: _made(made, change, key) for key in made},
        )


def template(key: str) -> str:
    """The key with ``*`` for its numbers."""
    return _NUMBER.sub("*", key)


def _made(made: Made, change: _Change, key: str) -> Expression:
    moved = made[change.moves.get(key, key)]
    return changed(moved, change.verb, change.size) if key in change.keys else moved


def changed(made: Expression, verb: str, size: int) -> Expression:
    """What an operation makes of a tensor; see `Alternative.verb`."""
    if verb == "transpose":
        return transposed(made, 0, 1)
    if verb in ("halves", "thirds"):
        count = 2 if verb == "halves" else 3
        parts = split(made, 0, count)
        return Joined(tuple(parts[at] for at in order_of(verb, size)), 0)
    rest = made.shape[1:]
    rows = (2, size // 2) if verb == "interleave" else (size // 2, 2)
    heads = Reshaped(made, (made.shape[0] // size, *rows, *rest))
    turned = permuted(heads, (0, 2, 1, *range(3, 3 + len(rest))))
    return Reshaped(turned, made.shape)


def order_of(verb: str, stays: int) -> tuple[int, ...]:
    """The order of the parts: two are exchanged, and of thirds one stays."""
    if verb == "halves":
        return 1, 0
    moved = [at for at in range(3) if at != stays]
    order = {moved[0]: moved[1], moved[1]: moved[0], stays: stays}
    return tuple(order[at] for at in range(3))


def _swaps(made: Made) -> Iterator[_Change]:
    """Siblings of equal shapes, exchanged in every module of one template."""
    pairs: dict[tuple[str, str, str], dict[str, str]] = {}
    children: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {}
    for key, it in made.items():
        parts = key.split(".")
        for depth in range(len(parts)):
            parent, name = ".".join(parts[:depth]), parts[depth]
            below = ".".join(parts[depth + 1 :])
            children.setdefault(parent, {}).setdefault(name, {})[below] = it.shape
    for parent, named in children.items():
        if len(named) > _MOST_CHILDREN:
            continue
        for a, b in combinations(named, 2):
            blocks = a.isdecimal() and b.isdecimal() and len(named) > _MOST_BLOCKS
            if named[a] != named[b] or blocks:
                continue
            prefix = f"{parent}." if parent else ""
            for below in named[a]:
                tail = f".{below}" if below else ""
                one, two = f"{prefix}{a}{tail}", f"{prefix}{b}{tail}"
                moves = pairs.setdefault((template(parent), a, b), {})
                moves |= {one: two, two: one}
    for (parent, a, b), moves in pairs.items():
        prefix = f"{parent}." if parent else ""
        other = f"{prefix}{b}" if b.isdecimal() else b
        yield _Change(f"{prefix}{a} and {other} swapped", moves)


def _reversals(made: Made) -> Iterator[_Change]:
    """Numbered siblings of equal shapes, from the last to the first."""
    numbered: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for key, it in made.items():
        for found in _NUMBER.finditer(key):
            below = numbered.setdefault(key[: found.start()], {}).setdefault(int(found[0]), {})
            below[key[found.end() :]] = it.shape
    for prefix, blocks in numbered.items():
        count, shapes = len(blocks), blocks.get(0)
        if count < 3 or set(blocks) != set(range(count)):
            continue  # two are swapped
        if all(block == shapes for block in blocks.values()):
            moves = {
                f"{prefix}{at}{below}": f"{prefix}{count - 1 - at}{below}"
                for at, block in blocks.items()
                for below in block
            }
            yield _Change(f"the blocks {prefix}0 to {count - 1} in reversed order", moves)


def _operations(made: Made) -> Iterator[_Change]:
    """Square matrices transposed, halves and thirds exchanged, rotary layouts."""
    named: dict[str, list[str]] = {}
    for key in made:
        named.setdefault(template(key), []).append(key)
    shapes = {name: made[keys[0]].shape for name, keys in named.items()}
    square = [
        name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == shape[1] > 1
    ]
    for name in square:
        yield _Change(f"{name} transposed", {}, "transpose", tuple(named[name]))
    if len(square) > 1:
        every = tuple(key for name in square for key in named[name])
        yield _Change("every square matrix transposed", {}, "transpose", every)
    yield from _rotary(named, shapes)
    for module, names in _modules(shapes).items():
        rows = {shapes[name][0] for name in names if shapes[name]}
        keys = tuple(key for name in names for key in named[name])
        if len(rows) != 1 or any(not shapes[name] for name in names):
            continue
        if not rows.pop() % 2 and any(len(shapes[name]) > 1 for name in names):
            yield _Change(f"the halves of {module} exchanged", {}, "halves", keys)
    for module, names in _modules(shapes).items():
        rows = {shapes[name][0] for name in names if shapes[name]}
        matrices = [shapes[name] for name in names if len(shapes[name]) > 1]
        if len(rows) == 1 and matrices and all(s[0] == 3 * s[1] for s in matrices):
            keys = tuple(key for name in names for key in named[name])
            for stays in (2, 0, 1):
                one, two = (at + 1 for at in range(3) if at != stays)
                text = f"parts {one} and {two} of {module} exchanged"
                yield _Change(text, {}, "thirds", keys, stays)


def _modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in shapes:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    return modules


def _rotary(
    named: Mapping[str, Sequence[str]], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[_Change]:
    """The rows of queries and keys in the other layout, for every size of a head."""
    modules = _modules(shapes)
    for query, key in _queries_and_keys([*modules]):
        names = [it for it in (*modules[query], *modules[key]) if shapes[it]]
        rows = gcd(*(shapes[it][0] for it in names))
        keys = tuple(key for it in names for key in named[it])
        for size in (size for size in _SIZES if rows % size == 0):
            both = f"the rows of {query} and {key}, in heads of {size},"
            yield _Change(f"{both} from half-split to interleaved", {}, "interleave", keys, size)
            yield _Change(f"{both} from interleaved to half-split", {}, "deinterleave", keys, size)


def _queries_and_keys(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Siblings whose names say so: ``query`` and ``key``, ``q_proj`` and ``k_proj``."""
    for module in modules:
        parent, dot, name = module.rpartition(".")
        for word, other in (("query", "key"), ("q", "k")):
            twin = f"{parent}{dot}{name.replace(word, other, 1)}"
            if word in name and twin in modules:
                yield module, twin
                break


def _touched(change: _Change) -> tuple[str, ...]:
    return (*change.moves, *change.keys)


def _numbered(change: _Change) -> bool:
    return any(_NUMBER.search(key) for key in _touched(change))


def _block(key: str) -> str:
    """The key up to its first number: its block."""
    found = _NUMBER.search(key)
    return key[: found.end()] if found else ""


def _blocks(change: _Change) -> dict[str, None]:
    return dict.fromkeys(_block(key) for key in _touched(change))


def _in_one_block(change: _Change) -> Iterator[_Change]:
    """The same in one block alone, if it moves nothing out of that."""
    if any(_block(a) != _block(b) for a, b in change.moves.items()):
        return
    for block in _blocks(change) if _numbered(change) else ():
        yield _Change(
            f"{change.text}, in {block} alone",
            {a: b for a, b in change.moves.items() if _block(a) == block},
            change.verb,
            tuple(key for key in change.keys if _block(key) == block),
            change.size,
        )


def _is_in(change: _Change, block: str) -> bool:
    return bool(block) and any(template(key).startswith(block) for key in _touched(change))


def _touches(change: _Change, near: str) -> bool:
    """Whether it changes the block that a module is in."""
    block = _block(near)
    return bool(block) and any(_block(key) == block for key in _touched(change))
