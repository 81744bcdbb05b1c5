r"""Operations as rules: one for all blocks that have the same, the index a group.

Splits, concats and copies give their final names at once; transposes and reshapes keep the key,
which the renames that follow change.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.infer.result import Inference, InferredOperation
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.rewrites import escaped
from ckpt.infer.words import template_of

Table = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class _Joint:
    """A split, concat or copy."""

    verb: str
    olds: tuple[str, ...]
    news: tuple[str, ...]
    dim: int = 0
    sizes: tuple[int, ...] = ()

    @property
    def likeness(self) -> tuple[object, ...]:
        """What those that one rule makes have in common."""
        olds, news = (tuple(map(template_of, keys)) for keys in (self.olds, self.news))
        return self.verb, olds, news, self.dim, self.unequal

    @property
    def unequal(self) -> tuple[int, ...]:
        """The sizes of the parts of a split, where they differ."""
        return self.sizes if self.verb == "split" and len(set(self.sizes)) > 1 else ()


def tables_for(inference: Inference, keys: Sequence[str], shapes: Shapes) -> list[Table]:
    """The rules of the operations and copies of an inference, as a rule file has them.

    Args:
        inference: What is wanted.
        keys: All of the source that are not dropped.
        shapes: Of the target.
    """
    verbs: dict[str, list[InferredOperation]] = {}
    for each in inference.operations:
        verbs.setdefault(each.verb, []).append(each)
    tables = _changed(verbs.get("transpose", []), keys, {"transpose": ""})
    for shape in dict.fromkeys(shapes[each.targets[0]] for each in verbs.get("reshape", ())):
        same = [each for each in verbs["reshape"] if shapes[each.targets[0]] == shape]
        tables += _changed(same, keys, {"reshape": "", "shape": [*shape]})
    joints = [
        _Joint(each.verb, each.sources, each.targets, each.dim, each.sizes)
        for each in (*verbs.get("split", ()), *verbs.get("concat", ()))
    ]
    joints += (
        _Joint("duplicate", (old,), tuple(news))
        for old, news in inference.renames.items()
        if len(news) > 1
    )
    groups: dict[tuple[object, ...], list[_Joint]] = {}
    for joint in joints:
        groups.setdefault(joint.likeness, []).append(joint)
    for group in groups.values():
        tables += _generalised(group)
    return _with_leaves_joined(tables)


def _changed(
    operations: Sequence[InferredOperation], keys: Sequence[str], table: Table
) -> list[Table]:
    wanted = [each.sources[0] for each in operations]
    verb = next(iter(table))
    others = [key for key in keys if key not in {*wanted}]
    return [{**table, verb: pattern} for pattern in patterns_for(wanted, others)]


def _generalised(group: Sequence[_Joint]) -> list[Table]:
    """One rule for all of a group, or one for each."""
    rows = [_numbers(joint.olds[0]) for joint in group]
    same = all(_numbers(old) == row for joint, row in zip(group, rows, strict=True)
               for old in joint.olds)  # fmt: skip
    if len(group) > 1 and same:
        news = [
            _in_groups([joint.news[place] for joint in group], rows)
            for place in range(len(group[0].news))
        ]
        if None not in news:
            olds = [re.sub(r"\\?#", r"(\\d+)", escaped(template_of(old))) for old in group[0].olds]
            return [_table(group[0], olds, [new for new in news if new is not None])]
    return [_table(each, [escaped(old) for old in each.olds], [*each.news]) for each in group]


def _table(joint: _Joint, olds: Sequence[str], news: Sequence[str]) -> Table:
    found = [f"^{old}$" for old in olds]
    table: Table = {joint.verb: found[0], "into": [*news]}
    if joint.verb == "concat":
        table = {"concat": found, "into": news[0]}
    if joint.dim:
        table["dim"] = joint.dim
    if joint.unequal:
        table["sizes"] = [*joint.unequal]
    return table


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(found) for found in _NUMBER.findall(text))


def _in_groups(news: Sequence[str], rows: Sequence[tuple[int, ...]]) -> str | None:
    """The new names as one, its numbers made of the groups; None where that cannot be."""
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
    """Rules that differ in the last part of all names alone, `weight` and `bias`, as one."""
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
        joined.append(_joined(group[0][1], leaves))
    return joined


def _leaf_of(table: Table) -> tuple[str, str]:
    """The last part that all names of a rule share, and the rule without it."""
    verb = next(iter(table))
    if verb not in ("split", "concat", "duplicate"):
        return "", repr(table)
    olds, news = _listed(table[verb]), _listed(table["into"])
    lasts = {old[:-1].rpartition(r"\.")[2] for old in olds}
    lasts |= {new.rpartition(".")[2] for new in news}
    leaf = lasts.pop()
    if lasts or not leaf.isidentifier():
        return "", repr(table)
    cut = {**table, verb: [old[: -len(leaf) - 1] for old in olds],
           "into": [new[: -len(leaf)] for new in news]}  # fmt: skip
    return leaf, repr(cut)


def _joined(table: Table, leaves: Sequence[str]) -> Table:
    verb, size = next(iter(table)), len(leaves[0])
    group = len(re.findall(r"\(\\d", _listed(table[verb])[0])) + 1
    olds = [f"{old[: -size - 1]}({'|'.join(leaves)})$" for old in _listed(table[verb])]
    news = [f"{new[:-size]}{{{group}}}" for new in _listed(table["into"])]
    if verb == "concat":
        return {**table, verb: olds, "into": news[0]}
    return {**table, verb: olds[0], "into": news}


def _listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]
