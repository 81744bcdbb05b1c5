"""Traced notes as rules: what code made of tensors, in the rule language.

Law: the rules, applied to the entries by `plan_tensors`, give each tensor the key and the elements
that its note says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from ckpt.errors import PlanError
from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.infer.rules.cutting import escaped
from ckpt.infer.rules.synthesis import synthesise
from ckpt.ops.rules.steps import (
    Table,
    chain_source,
    in_order,
    steps_of,
    tables_of_fills,
    tables_of_steps,
    tiled,
    with_chains,
)
from ckpt.rules import expressions as ex
from ckpt.rules.derived.simplified import simplified
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import (
    Copied,
    Expression,
    Filled,
    Joined,
    Narrowed,
    Reshaped,
    Source,
)
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

Made = Mapping[str, Expression]
_SHOWN = 2  # keys in a message


def expression(note: Sequence[Any], of: Mapping[str, Source]) -> Expression:
    """A note of `ckpt.ops.rules.tracing` as an expression, simplified.

    Raises:
        PlanError: Code computed its values; the message says by which operations, of which keys.
    """
    return _normal(_expression(note, of))


def _expression(note: Sequence[Any], of: Mapping[str, Source]) -> Expression:
    match note:
        case ["source", str() as key]:
            return of[key]
        case ["permuted", inner, dims]:
            return ex.permuted(_expression(inner, of), dims)
        case ["reshaped", inner, shape]:
            return ex.reshaped(_expression(inner, of), shape)
        case ["narrowed", inner, dim, start, length]:
            return Narrowed(_expression(inner, of), dim, start, length)
        case ["joined", notes, dim]:
            return ex.joined([_expression(each, of) for each in notes], dim)
        case ["cast", inner, dtype]:
            return ex.cast(_expression(inner, of), dtype)
        case ["filled", dtype, shape, value]:
            return ex.filled(dtype, shape, value)
        case ["computed", names, keys]:
            more = ", …" if len(keys) > _SHOWN else ""
            of_keys = f" of {', '.join(keys[:_SHOWN])}{more}" if keys else ""
            raise PlanError(f"computed from the values{of_keys} ({', '.join(names)})")
    raise PlanError(f"no rule makes {note}")


def _normal(made: Expression) -> Expression:
    """Simplified, without copies, and with parts of tensors inside of reshapes where they can be.

    Parts of a reshaped tensor are parts of the tensor if its rows are not cut.
    """
    match made:
        case Source() | Filled():
            return made
        case Copied(of=inner):
            return _normal(inner)
        case Joined(parts=parts, dim=dim):
            return simplified(Joined(tuple(map(_normal, parts)), dim))
    made = simplified(replace(made, of=_normal(made.of)))
    match made:
        case Narrowed(of=Reshaped(of=inner), dim=0, start=start, length=length) if inner.shape:
            size, row = prod(made.shape[1:]), prod(inner.shape[1:])
            if row and start * size % row == length * size % row == 0:
                part = simplified(Narrowed(inner, 0, start * size // row, length * size // row))
                return simplified(Reshaped(part, made.shape))
    return made


def rules_of(entries: Sequence[TensorEntry], made: Made) -> tuple[Rule, ...]:
    """The rules that make tensors of some entries, and drop the other entries.

    Args:
        entries: Of the source.
        made: By key, as `expression` gives it.

    Raises:
        PlanError: No rules make them.
        RuleError: Likewise.
    """
    if made == {it.key: Source(it.key, it.dtype, it.shape) for it in entries}:
        return ()
    fills = {key: it for key, it in made.items() if isinstance(it, Filled)}
    begun = _begun(entries, {key: it for key, it in made.items() if key not in fills})
    rules = _read(begun.tables)
    middle = plan_tensors(entries, rules).entries_after if rules else list(entries)
    last = {key: steps_of(it) for key, it in begun.left.items() if not chain_source(it)}
    left = {key: last[key][0] if key in last else it for key, it in begun.left.items()}
    target = [TensorEntry(key, it.dtype, it.shape) for key, it in left.items()]
    rules += synthesise(middle, target, _inference(middle, left))
    after = tables_of_steps({key: steps for key, (_, steps) in last.items()}, [*left])
    rules += _read([*after, *tables_of_fills(fills, [*left])])
    plan = plan_tensors(entries, rules)
    if {it.key: _normal(it.made_of) for it in plan.tensors} != dict(made):
        raise PlanError("the rules that were found do not make the same tensors")
    return tuple(rules)


def _read(tables: Sequence[Table]) -> list[Rule]:
    return read_rules([*tables], name="the operations") if tables else []


@dataclass(slots=True)
class _Begun:
    """The rules on single tensors, which go first, and what is left to make of their results."""

    tables: list[Table] = field(default_factory=list)
    left: dict[str, Expression] = field(default_factory=dict)


def _begun(entries: Sequence[TensorEntry], made: Made) -> _Begun:
    """Give each use of a tensor its own copy, if needed, and do the operations on it.

    Left are tensors of the source as they are, equal parts of them, and joins.
    """
    uses = _uses(made)
    joined = {key for it in made.values() if not chain_source(it) for key in ex.sources_of(it)}
    copies: dict[str, list[str]] = {}
    steps = {}
    keys = {entry.key for entry in entries}

    def give(chain: Expression) -> Expression:
        source = chain_source(chain)
        assert source is not None
        all_plain = source.key not in joined and set(uses[source.key]) == {source}
        if all_plain or tiled(uses[source.key]):
            return chain
        key = source.key
        if len(uses[source.key]) > 1:
            key = _free(f"{source.key}~{len(copies.get(source.key, ()))}", keys)
            copies.setdefault(source.key, []).append(key)
        steps[key] = steps_of(chain)[1]
        return Source(key, chain.dtype, chain.shape)

    left = {key: with_chains(it, give) for key, it in made.items()}
    keys = (keys - copies.keys()).union(*copies.values())
    tables = [{"duplicate": f"^{escaped(old)}$", "into": new} for old, new in copies.items()]
    return _Begun([*tables, *tables_of_steps(steps, sorted(keys))], left)


def _free(key: str, taken: set[str]) -> str:
    while key in taken:
        key += "~"
    return key


def _uses(made: Made) -> dict[str, list[Expression]]:
    """The chains over each tensor of the source."""
    found: dict[str, list[Expression]] = {}

    def give(chain: Expression) -> Expression:
        source = chain_source(chain)
        assert source is not None
        found.setdefault(source.key, []).append(chain)
        return chain

    for it in made.values():
        with_chains(it, give)
    return found


def _inference(entries: Sequence[TensorEntry], made: Made) -> Inference:
    """What is left to make, as an inference that is certain.

    Raises:
        PlanError: It is more than matches, splits and concats.
    """
    matches, operations, parts = list[Match](), list[InferredOperation](), dict[str, list[str]]()
    for key, it in made.items():
        match it:
            case Source(key=old):
                matches.append(Match(old, key, Confidence.CERTAIN, 1.0))
            case Narrowed(of=Source(key=old)):
                parts.setdefault(old, []).append(key)
            case Joined(parts=some, dim=dim) if all(isinstance(part, Source) for part in some):
                olds, sizes = [*ex.sources_of(it)], tuple(part.shape[dim] for part in some)
                operations.append(_operation("concat", olds, [key], dim, sizes))
            case _:
                raise PlanError(f"{key}: too many operations in one tensor")
    for old, news in parts.items():
        split = in_order([made[key] for key in news])
        named = {it.start: key for key in news for it in in_order([made[key]])}
        sizes = tuple(it.length for it in split)
        ordered = [named[it.start] for it in split]
        operations.append(_operation("split", [old], ordered, split[0].dim, sizes))
    used = {it.source for it in matches} | {old for one in operations for old in one.sources}
    dropped = tuple(entry.key for entry in entries if entry.key not in used)
    return Inference(tuple(matches), tuple(operations), dropped, ())


def _operation(
    verb: str, olds: Sequence[str], news: Sequence[str], dim: int, sizes: tuple[int, ...]
) -> InferredOperation:
    return InferredOperation(
        verb, tuple(olds), tuple(news), Confidence.CERTAIN, 1.0, dim=dim, sizes=sizes
    )
