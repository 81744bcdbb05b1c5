r"""Operations as rules: one rule for all repeated blocks, with the index as a group.

Splits, concats and copies give the final names; transposes and reshapes keep the key, and the
renames that follow change it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckpt.infer.result import Confidence, Inference, InferredOperation
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.rewrites import escaped
from ckpt.infer.rules.stacking import tables_of_stacks
from ckpt.infer.words import template_of

Table = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"\d+")


def tables_for(inference: Inference, keys: Sequence[str], shapes: Shapes) -> list[Table]:
    """The operations and copies of an inference, as the tables of a rule file.

    Args:
        inference: The mapping.
        keys: The keys of the source that are not dropped.
        shapes: The shapes of the target by key.
    """
    copies = (
        InferredOperation("duplicate", (old,), tuple(news), Confidence.LIKELY, 1.0)
        for old, news in inference.renames.items()
        if len(news) > 1
    )
    groups: dict[tuple[object, ...], list[InferredOperation]] = {}
    for one in (*inference.operations, *copies):
        groups.setdefault(_likeness(one, shapes), []).append(one)
    tables = tables_of_stacks(inference.operations)
    for verb in ("transpose", "permute", "reshape", "split", "concat", "duplicate"):
        for group in groups.values():
            if group[0].verb != verb:
                continue
            if verb == "transpose":
                tables += _changed(group, keys, {"transpose": ""})
            elif verb == "permute":
                tables += _changed(group, keys, {"permute": "", "dims": [*group[0].dims]})
            elif verb == "reshape":
                shape = [*shapes[group[0].targets[0]]]
                tables += _changed(group, keys, {"reshape": "", "shape": shape})
            else:
                tables += _generalised(group)
    return _with_leaves_joined(tables)


def _likeness(one: InferredOperation, shapes: Shapes) -> tuple[object, ...]:
    """Operations with the same value can become one rule."""
    if one.verb == "transpose":
        return (one.verb,)
    if one.verb == "permute":
        return one.verb, one.dims
    if one.verb == "reshape":
        return one.verb, shapes[one.targets[0]]
    olds, news = (tuple(map(template_of, keys)) for keys in (one.sources, one.targets))
    return one.verb, olds, news, one.dim, _unequal(one)


def _unequal(one: InferredOperation) -> tuple[int, ...]:
    """The sizes of the parts of a split, if they differ."""
    return one.sizes if one.verb == "split" and len(set(one.sizes)) > 1 else ()


def _changed(
    operations: Sequence[InferredOperation], keys: Sequence[str], table: Table
) -> list[Table]:
    wanted = [operation.sources[0] for operation in operations]
    verb = next(iter(table))
    others = [key for key in keys if key not in {*wanted}]
    return [{**table, verb: pattern} for pattern in patterns_for(wanted, others)]


def _generalised(group: Sequence[InferredOperation]) -> list[Table]:
    """One rule for a whole group, or one per joint."""
    rows = [_numbers(joint.sources[0]) for joint in group]
    same = all(_numbers(old) == row for joint, row in zip(group, rows, strict=True)
               for old in joint.sources)  # fmt: skip
    if len(group) > 1 and same:
        news = [
            _generalised_name([joint.targets[place] for joint in group], rows)
            for place in range(len(group[0].targets))
        ]
        if None not in news:
            olds = [
                re.sub(r"\\?#", r"(\\d+)", escaped(template_of(old))) for old in group[0].sources
            ]
            return [_table(group[0], olds, [new for new in news if new is not None])]
    return [
        _table(joint, [escaped(old) for old in joint.sources], [*joint.targets]) for joint in group
    ]


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


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(found) for found in _NUMBER.findall(text))


def _generalised_name(news: Sequence[str], rows: Sequence[tuple[int, ...]]) -> str | None:
    """The new names as one, with numbers made of the groups; None if impossible."""
    columns = [*zip(*map(_numbers, news), strict=True)]
    groups = [*zip(*rows, strict=True)]
    made = []
    for column in columns:
        text = _made_of(column, groups)
        if text is None:
            return None
        made.append(text)
    pieces = template_of(news[0]).split("#")
    return pieces[0] + "".join(text + piece for text, piece in zip(made, pieces[1:], strict=True))


def _made_of(column: Sequence[int], groups: Sequence[Sequence[int]]) -> str | None:
    for number, group in enumerate(groups, start=1):
        if [*column] == [*group]:
            return f"{{{number}}}"
    if len(set(column)) == 1:
        return str(column[0])
    for number, group in enumerate(groups, start=1):
        shifts = {value - old for value, old in zip(column, group, strict=True)}
        if len(shifts) == 1:
            return f"{{{number}{shifts.pop():+d}}}"
    return None


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
