r"""Operations as rules: one rule for all repeated blocks, with the index as a group.

Splits, concats and copies give the final names; transposes and reshapes keep the key, and the
renames that follow change it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpt.infer.result import Confidence, Inference, InferredOperation
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.cutting import escaped, form
from ckpt.infer.rules.folding import folded, marked, varies
from ckpt.infer.rules.stacking import tables_of_stacks

Table = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"\d+")
KEEP_KEYS = ("transpose", "permute", "reshape")  # operations that give no names
_LINE = "\n"  # between the targets of one operation


def tables_for(inference: Inference, keys: Sequence[str], shapes: Shapes) -> list[Table]:
    """The operations and copies of an inference, as the tables of a rule file.

    Args:
        inference: The mapping.
        keys: The keys of the source that are not dropped.
        shapes: The shapes of the target by key.
    """
    groups: dict[tuple[object, ...], list[InferredOperation]] = {}
    for one in (*inference.operations, *_copies(inference)):
        groups.setdefault(_likeness(one, shapes), []).append(one)
    tables: list[Table] = []
    for group in groups.values():
        if group[0].verb in KEEP_KEYS:
            wanted = {one.sources[0]: None for one in group}
            found = patterns_for([*wanted], [key for key in keys if key not in wanted])
            tables += [_changing(group[0], pattern, shapes) for pattern in found]
    tables += tables_of_stacks(inference.operations, keys)
    for verb in ("split", "concat", "duplicate"):
        for group in groups.values():
            tables += _generalised(group) if group[0].verb == verb else []
    return _with_leaves_joined(tables)


def tables_one_by_one(
    inference: Inference, keys: Sequence[str], shapes: Shapes, mark: str
) -> list[Table]:
    """The operations, a rule for each, which give names with a mark behind them."""
    tables = []
    for one in (*inference.operations, *_copies(inference)):
        olds = [*map(escaped, one.sources)]
        if one.verb in KEEP_KEYS:
            tables.append(_changing(one, f"^{olds[0]}$", shapes))
        elif one.verb not in ("stack", "unstack"):
            tables.append(_table(one, olds, [f"{new}{mark}" for new in one.targets]))
    return [*tables, *tables_of_stacks(inference.operations, keys, mark)]


def _copies(inference: Inference) -> Iterator[InferredOperation]:
    """The tensors that have several places in the target."""
    for old, news in inference.renames.items():
        if len(news) > 1:
            yield InferredOperation("duplicate", (old,), tuple(news), Confidence.LIKELY, 1.0)


def _likeness(one: InferredOperation, shapes: Shapes) -> tuple[object, ...]:
    """Operations with the same value can become one rule."""
    if one.verb == "transpose":
        return (one.verb,)
    if one.verb == "permute":
        return one.verb, one.dims
    if one.verb == "reshape":
        return one.verb, shapes[one.targets[0]]
    olds, news = (tuple(map(marked, keys)) for keys in (one.sources, one.targets))
    return one.verb, olds, news, one.dim, _unequal(one)


def _unequal(one: InferredOperation) -> tuple[int, ...]:
    """The sizes of the parts of a split, if they differ."""
    return one.sizes if one.verb == "split" and len(set(one.sizes)) > 1 else ()


def _changing(one: InferredOperation, pattern: str, shapes: Shapes) -> Table:
    """The rule of an operation that keeps the keys which a pattern finds."""
    table: Table = {one.verb: pattern}
    if one.verb == "permute":
        table["dims"] = [*one.dims]
    if one.verb == "reshape":
        table["shape"] = [*shapes[one.targets[0]]]
    return table


def _generalised(group: Sequence[InferredOperation]) -> list[Table]:
    """A rule for all operations whose numbers are related alike."""
    by_keys = {
        (joint.sources[0], _LINE.join(joint.targets)): joint
        for joint in group
        if len({(*_NUMBER.findall(old),) for old in joint.sources}) == 1
    }
    alike = folded([*by_keys], whole=True)
    tables = [
        _table(joint, [*map(escaped, joint.sources)], joint.targets)
        for joint in group
        if joint not in by_keys.values()
    ]
    for some in alike:
        joint = by_keys[some.pairs[0]]
        made = [makers[0] if varies(numbers) else None
                for numbers, makers in zip(some.news, some.makers, strict=True)]  # fmt: skip
        forms = [
            form(some, marked(old), some.new, range(len(some.olds)), 0, made)
            for old in joint.sources
        ]
        tables.append(_table(joint, [it.old for it in forms], forms[0].new.split(_LINE)))
    return tables


def _table(joint: InferredOperation, olds: Sequence[str], news: Sequence[str]) -> Table:
    found = [f"^{old}$" for old in olds]
    table: Table = {joint.verb: found[0], "into": [*news]}
    if joint.verb == "concat":
        table = {"concat": found, "into": news[0]}
    if joint.dim:
        table["dim"] = joint.dim
    if sizes := _unequal(joint):
        table["sizes"] = [*sizes]
    return table


def _with_leaves_joined(tables: Sequence[Table]) -> list[Table]:
    """Join rules that differ only in the last part of all names, such as `weight` and `bias`."""
    groups: dict[str, list[tuple[str, Table]]] = {}
    for table in tables:
        leaf, rest = _leaf_of(table)
        groups.setdefault(rest, []).append((leaf, table))
    joined = []
    for group in groups.values():
        leaves = [leaf for leaf, _ in group]
        if len(group) == 1 or "" in leaves:
            joined += [table for _, table in group]
            continue
        joined.append(_with_leaves(group[0][1], leaves))
    return joined


def _leaf_of(table: Table) -> tuple[str, str]:
    """The last part that all names of a rule share, and a text of the rule without it."""
    verb = next(iter(table))
    if verb not in ("split", "concat", "duplicate"):
        return "", repr(table)
    olds, news = _as_list(table[verb]), _as_list(table["into"])
    lasts = {old[:-1].rpartition(r"\.")[2] for old in olds}
    lasts |= {new.rpartition(".")[2] for new in news}
    leaf = lasts.pop()
    if lasts or not leaf.isidentifier():
        return "", repr(table)
    cut = {**table, verb: [old[: -len(leaf) - 1] for old in olds],
           "into": [new[: -len(leaf)] for new in news]}  # fmt: skip
    return leaf, repr(cut)


def _with_leaves(table: Table, leaves: Sequence[str]) -> Table:
    verb, size = next(iter(table)), len(leaves[0])
    group = len(re.findall(r"\(\\d", _as_list(table[verb])[0])) + 1
    olds = [f"{old[: -size - 1]}({'|'.join(leaves)})$" for old in _as_list(table[verb])]
    news = [f"{new[:-size]}{{{group}}}" for new in _as_list(table["into"])]
    if verb == "concat":
        return {**table, verb: olds, "into": news[0]}
    return {**table, verb: olds[0], "into": news}


def _as_list(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]
