"""An expression over other tensors: what an operation does to those that go with its own.

An average of the weights, and the moments of an optimizer, have the shapes of the weights.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from ckpt.rules.expressions import (
    Averaged,
    Cast,
    Copied,
    Expression,
    Filled,
    Joined,
    Merged,
    Narrowed,
    Permuted,
    Reshaped,
    Resized,
    Source,
    joined,
    merged,
)

_CHANGES = {
    Cast: "is cast",
    Copied: "is a copy of another parameter",
    Merged: "is tied to another parameter",
    Resized: "is interpolated",
}


def with_sources(expression: Expression, of: Callable[[Source], Expression]) -> Expression:
    """The same expression over other tensors, of the same shapes.

    Raises:
        PlanError: They do not have one dtype where they are joined.
    """
    match expression:
        case Source():
            return of(expression)
        case Filled():
            return expression
        case Joined(parts=parts, dim=dim):
            return joined([with_sources(part, of) for part in parts], dim)
        case Merged(of=inner, other=other):
            return merged(with_sources(inner, of), with_sources(other, of))
        case _:
            return replace(expression, of=with_sources(expression.of, of))


def changed_by(expression: Expression) -> str | None:
    """What an expression does to values, such as ``is cast``; None if it only moves elements."""
    match expression:
        case Source():
            return None
        case Joined(parts=parts):
            return next((how for part in parts if (how := changed_by(part))), None)
        case Permuted() | Reshaped() | Narrowed():
            return changed_by(expression.of)
        case Averaged() | Filled():
            return "gets new elements"
    return _CHANGES[type(expression)]


def used_twice(expressions: Iterable[Expression], owners: Mapping[str, Hashable]) -> Iterator[str]:
    """The tensors of which some expressions, which only move elements, use an element twice.

    Args:
        expressions: Each makes another tensor.
        owners: The same for keys of one tensor, which is reported by the first of them.
    """
    chains: defaultdict[Hashable, list[_Chain]] = defaultdict(list)
    keys: dict[Hashable, str] = {}
    for expression in expressions:
        for key, chain in _chains(expression):
            keys.setdefault(owners[key], key)
            chains[owners[key]].append(chain)
    return (keys[owner] for owner, found in chains.items() if _overlap(found, 0))


_Chain = tuple[Expression, ...]  # what is done to one use of a source, first to last


def _chains(expression: Expression) -> Iterator[tuple[str, _Chain]]:
    if isinstance(expression, Source):
        yield expression.key, ()
        return
    assert isinstance(expression, Joined | Permuted | Reshaped | Narrowed)
    parts = expression.parts if isinstance(expression, Joined) else (expression.of,)
    for part in parts:
        for key, chain in _chains(part):
            yield key, (*chain, expression)


def _overlap(chains: Sequence[_Chain], depth: int) -> bool:
    """Whether two uses of a source, alike up to a depth, have an element in common."""
    if len(chains) < 2:
        return False
    groups: dict[Hashable, list[_Chain]] = {}
    slices = dict[tuple[int, int], int]()
    for chain in chains:
        if len(chain) == depth:
            return True
        step = chain[depth]
        if isinstance(step, Narrowed):
            slices[step.start, step.length] = step.dim
            groups.setdefault((step.start, step.length, step.dim), []).append(chain)
        else:
            groups.setdefault(id(step), []).append(chain)
    if len(groups) > 1 and (len(slices) < len(groups) or len(set(slices.values())) > 1):
        return True
    ends = pairwise(sorted(slices))
    return any(one + length > other for (one, length), (other, _) in ends) or any(
        _overlap(group, depth + 1) for group in groups.values()
    )
