"""What migrations, one after the other, do to the tensors of a state_dict.

Nothing is computed on the way: rules run on descriptions, so that a tensor that ten migrations
touch is still one expression over the tensors of the source.
Law: migrations together do what they do one by one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ckpt.errors import CkptError
from ckpt.migrate.fold import template_of
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema, Schema
from ckpt.migrate.tree import Branch, tree_of
from ckpt.rules.at_once import AtOnce
from ckpt.rules.expressions import Expression, Source
from ckpt.rules.key_map import KeyMap
from ckpt.rules.planned import Planned, Renaming, Rule
from ckpt.rules.prefixes import Unwrap
from ckpt.tensors import NOT_A_TENSOR, TensorEntry


@dataclass(frozen=True)  # without slots, for `cached_property`
class Tensors:
    """The tensors of a state_dict on their way, by their keys of the moment.

    Attributes:
        planned: How each is made of the source.
        number: The `ckpt_schema` that they have now; None if it is not known.
    """

    planned: tuple[Planned, ...]
    number: int | None

    @cached_property
    def entries(self) -> list[TensorEntry]:
        """Their keys, dtypes and shapes."""
        return [TensorEntry(t.key, t.made_of.dtype, t.made_of.shape) for t in self.planned]

    @cached_property
    def tree(self) -> Branch:
        """Their keys as a tree."""
        return tree_of(self.entries)

    @cached_property
    def made_of(self) -> Mapping[str, Expression]:
        """Key to expression."""
        return {tensor.key: tensor.made_of for tensor in self.planned}

    @cached_property
    def form(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Keys and shapes."""
        return frozenset((entry.key, entry.shape) for entry in self.entries)

    def agree(self, schema: FoldedSchema) -> bool:
        """Whether they match a schema."""
        return schema.mismatch(self.tree, self.number) is None


def begin(schema: Schema) -> Tensors:
    """The tensors of a state_dict, before any migration."""
    planned = (Planned(e.key, Source(e.key, e.dtype, e.shape)) for e in schema.entries)
    return Tensors(tuple(planned), schema.number)


def ran(tensors: Sequence[Planned], rules: Iterable[Rule]) -> list[Planned]:
    """The tensors after rules, each of which may find nothing.

    Raises:
        PlanError: An operation does not fit a shape.
        RuleError: A pattern ran too long.
    """
    after = list(tensors)
    for rule in rules:
        after = _after(after, rule)
    return after


def _after(tensors: Sequence[Planned], rule: Rule) -> list[Planned]:
    """The tensors after a rule; operations leave keys alone that hold no tensor."""
    others = [tensor for tensor in tensors if tensor.made_of.dtype == NOT_A_TENSOR]
    if not others or isinstance(rule, Renaming | Unwrap):
        return rule.run(tensors)
    return [*rule.run([it for it in tensors if it.made_of.dtype != NOT_A_TENSOR]), *others]


def that_find(tensors: Sequence[Planned], rules: Iterable[Rule]) -> list[Rule]:
    """The rules that change something, each without its parts that find nothing."""
    found: list[Rule] = []
    at = list(tensors)
    for rule in rules:
        after = _after(at, rule)
        if len(after) != len(at) or any(a is not b for a, b in zip(at, after, strict=True)):
            found.append(_needed(rule, [tensor.key for tensor in at]))
        at = after
    return found


def _needed(rule: Rule, keys: Sequence[str]) -> Rule:
    match rule:
        case KeyMap():
            used = {rule.listed(key) for key in keys}
            return replace(rule, pairs={old: n for old, n in rule.pairs.items() if old in used})
        case AtOnce():
            rules = tuple(part for part in rule.rules if any(map(part.search, keys)))
            whole = len(rules) == len(rule.rules)
            return rule if whole else AtOnce(rules)
    return rule


def stepped(tensors: Tensors, migration: Migration) -> Tensors | None:
    """The tensors after a migration; None if its rules fail, or lead to another schema."""
    try:
        planned = ran(tensors.planned, migration.rules)
    except CkptError:
        return None
    after = Tensors(tuple(planned), migration.after.number)
    distinct = len(after.made_of) == len(planned)
    return after if distinct and after.agree(migration.after) else None


@dataclass(frozen=True, slots=True)
class Part:
    """What a migration does to a state_dict of another schema than the one that it was made for.

    Attributes:
        after: The tensors after it.
        touched: The keys that it changes, by their names before and after.
    """

    after: Tensors
    touched: frozenset[str]


def stepped_in_part(tensors: Tensors, migration: Migration) -> Part | None:
    """A migration of another branch: only what its rules touch must be as it expects.

    None if they touch nothing, or something that its schemas do not have, or leave something of
    what they change.
    """
    try:
        planned = ran(tensors.planned, migration.rules)
    except CkptError:
        return None
    same = {id(tensor) for tensor in tensors.planned} & {id(tensor) for tensor in planned}
    olds = [tensor.key for tensor in tensors.planned if id(tensor) not in same]
    news = [tensor.key for tensor in planned if id(tensor) not in same]
    before, after = migration.before, migration.after
    if not (olds or news) or len({tensor.key for tensor in planned}) < len(planned):
        return None
    if not all(template_of(before.keys, key) for key in olds):
        return None
    if not all(template_of(after.keys, key) for key in news):
        return None
    if _left(planned, migration) or not _whole(olds, migration):
        return None
    number = tensors.number if after.number == before.number else after.number
    return Part(Tensors(tuple(planned), number), frozenset((*olds, *news)))


def _left(planned: Sequence[Planned], migration: Migration) -> bool:
    """Whether keys are left that the migration should have taken away."""
    gone = _lines(migration.before) - _lines(migration.after)
    return any(
        (template := template_of(migration.before.keys, tensor.key))
        and (template, len(tensor.made_of.shape)) in gone
        for tensor in planned
    )


def _whole(olds: Sequence[str], migration: Migration) -> bool:
    """Whether all keys are there that the migration takes away."""
    needed = {
        line
        for line, leaf in migration.before.keys.lines()
        if not leaf.optional and (line, len(leaf.sizes)) not in _lines(migration.after)
    }
    return needed <= {template_of(migration.before.keys, key) for key in olds}


def _lines(schema: FoldedSchema) -> set[tuple[str, int]]:
    return {(line, len(leaf.sizes)) for line, leaf in schema.keys.lines()}
