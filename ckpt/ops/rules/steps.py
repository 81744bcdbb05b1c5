"""Operations on single tensors as the tables of a rule file, one for all that are changed alike.

A chain is an expression of operations with one operand, over one tensor of the source. Its steps
are those operations, the innermost first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.cutting import escaped
from ckpt.rules.expressions import (
    Cast,
    Expression,
    Filled,
    Joined,
    Narrowed,
    Permuted,
    Reshaped,
    Source,
)

Table = dict[str, Any]
Step = tuple[str, str | None, Any]  # a verb, and its field with a value
Shape = tuple[int, ...]


def chain_source(made: Expression) -> Source | None:
    """The tensor of a chain; None if an expression is not one."""
    while isinstance(made, Permuted | Reshaped | Narrowed | Cast):
        made = made.of
    return made if isinstance(made, Source) else None


def with_chains(made: Expression, give: Callable[[Expression], Expression]) -> Expression:
    """The expression with something in the place of each chain that is not part of another."""
    if chain_source(made) is not None:
        return give(made)
    match made:
        case Joined(parts=parts, dim=dim):
            return Joined(tuple(with_chains(part, give) for part in parts), dim)
        case Permuted() | Reshaped() | Narrowed() | Cast():
            return replace(made, of=with_chains(made.of, give))
    return made


def steps_of(made: Expression) -> tuple[Expression, tuple[Step, ...]]:
    """What operations with one operand begin with, and the operations."""
    match made:
        case Permuted(of=inner, dims=dims):
            step: list[Step] = [("permute", "dims", tuple(dims))]
            if tuple(dims) == (1, 0):
                step = [("transpose", None, None)]
        case Reshaped(of=inner, shape=shape):
            step = _reshaping(inner.shape, shape)
        case Narrowed(of=inner, dim=dim, start=start, length=length):
            to_end = start + length == inner.shape[dim]
            step = [("slice", "dim", (dim, start, None if to_end else start + length))]
        case Cast(of=inner, dtype=dtype):
            step = [("cast", "dtype", dtype)]
        case _:
            return made, ()
    begin, before = steps_of(inner)
    return begin, (*before, *step)


def _reshaping(old: Shape, new: Shape) -> list[Step]:
    """A reshape; without sizes if only dimensions of one element come or go."""
    if sum(size != 1 for size in new) == 1 or len(new) == 1:
        at = max(range(len(new)), key=lambda dim: new[dim])
        return [("reshape", "shape", tuple(-1 if dim == at else 1 for dim in range(len(new))))]
    return _ones(old, new, "unsqueeze") or _ones(old, new, "squeeze") or [("reshape", "shape", new)]


def _ones(old: Shape, new: Shape, verb: str) -> list[Step]:
    """The steps that only add dimensions of one element, or only remove them; none if others do."""
    more, less = (new, list(old)) if verb == "unsqueeze" else (old, list(new))
    dims = []
    for dim, size in enumerate(more):
        if dim >= len(less) or less[dim] != size:
            if size != 1:
                return []
            less.insert(dim, 1)
            dims.append(dim)
    if tuple(less) != tuple(more):
        return []
    return [(verb, "dim", dim) for dim in (dims if verb == "unsqueeze" else reversed(dims))]


def tables_of_steps(steps: Mapping[str, tuple[Step, ...]], keys: Sequence[str]) -> list[Table]:
    """The rules that do the steps of some keys, and nothing to the other ones.

    Args:
        steps: By key.
        keys: All keys.
    """
    groups: dict[tuple[Step, ...], list[str]] = {}
    for key, some in steps.items():
        if some:
            groups.setdefault(some, []).append(key)
    tables = []
    for some, wanted in groups.items():
        those = {*wanted}
        for pattern in patterns_for(wanted, [key for key in keys if key not in those]):
            tables += [_table(step, pattern) for step in some]
    return tables


def _table(step: Step, pattern: str) -> Table:
    match step:
        case ("slice", _, (dim, start, stop)):
            fields = {"dim": dim, "start": start} | ({} if stop is None else {"stop": stop})
            # A stop of 0 is another than none; the others are 0 if they are left out.
            return {"slice": pattern, **{k: it for k, it in fields.items() if it or k == "stop"}}
        case (verb, None, _):
            return {verb: pattern}
        case (verb, field, tuple(value)):
            return {verb: pattern, field: [*value]}
        case (verb, field, value):
            return {verb: pattern, field: value} if value else {verb: pattern}
    raise AssertionError(step)


def tables_of_fills(fills: Mapping[str, Filled], keys: Sequence[str]) -> list[Table]:
    """The rules that make new tensors, each beside another one, of its module if there is one."""
    tables = []
    for key, it in fills.items():
        module = key.rpartition(".")[0]
        beside = next((one for one in keys if one.rpartition(".")[0] == module), keys[0])
        table = {"fill": key, "beside": f"^{escaped(beside)}$", "value": it.value}
        tables.append({**table, "shape": [*it.shape], "dtype": it.dtype})
    return tables


def tiled(parts: Sequence[Expression]) -> bool:
    """Whether expressions are the parts of one tensor along one dimension, in any order."""
    if not all(isinstance(it, Narrowed) and isinstance(it.of, Source) for it in parts):
        return False
    ordered = in_order(parts)
    ends = [0, *(it.start + it.length for it in ordered)]
    return (
        len({it.dim for it in ordered}) == 1
        and [it.start for it in ordered] == ends[:-1]
        and ends[-1] == ordered[0].of.shape[ordered[0].dim]
        and prod(ordered[0].of.shape) > 0
    )


def in_order(parts: Sequence[Expression]) -> list[Narrowed]:
    """Parts of a tensor by their place in it."""
    return sorted((it for it in parts if isinstance(it, Narrowed)), key=lambda it: it.start)
