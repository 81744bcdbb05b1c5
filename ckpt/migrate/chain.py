"""What migrations, one after the other, do to the tensors of a state_dict.

Nothing is computed on the way: rules run on descriptions, so that a tensor that ten migrations
touch is still one expression over the tensors of the source.
Law: migrations together do what they do one by one.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ckpt.errors import CkptError, SlowRuleError
from ckpt.migrate.fold import folded, template_of
from ckpt.migrate.migration import Migration, MigrationError
from ckpt.migrate.schema import FoldedSchema, Schema
from ckpt.migrate.tree import Branch, regrown, tree_of
from ckpt.rules.at_once import AtOnce
from ckpt.rules.derived.simplified import simplified
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
        number: The `ckpt_schema` that they have now; None if there is none. Only before they
            entered the graph it may also mean that it is not known.
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

    @cached_property
    def lines(self) -> frozenset[str]:
        """Their keys as templates."""
        return frozenset(line for line, _ in folded(self.tree).lines())

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
    known = {id(tensor) for tensor in tensors}
    after = list(tensors)
    for rule in rules:
        after = _after(after, rule)
    return [it if id(it) in known else _simplified(it) for it in after]


def _simplified(tensor: Planned) -> Planned:
    made = tensor.made_of
    return tensor if isinstance(made, Source) else replace(tensor, made_of=simplified(made))


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


def _tried(tensors: Tensors, migration: Migration) -> list[Planned] | None:
    """The tensors after the rules of a migration; None if these do not go with them.

    Raises:
        MigrationError: A pattern runs too long.
    """
    try:
        return ran(tensors.planned, migration.rules)
    except SlowRuleError as error:
        raise MigrationError(f"{migration.name}: {error}", hint=error.hint) from error
    except CkptError:
        return None


def stepped(tensors: Tensors, migration: Migration) -> Tensors | None:
    """The tensors after a migration; None if its rules fail, or lead to another schema."""
    planned = _tried(tensors, migration)
    if planned is None:
        return None
    after = _grown(tensors, planned, migration.after.number)
    return after if after is not None and after.agree(migration.after) else None


def _grown(tensors: Tensors, planned: Sequence[Planned], number: int | None) -> Tensors | None:
    """The tensors after a step; None if two have one key.

    Their tree is that of the tensors before but for what changed: that is little in most steps.
    """
    after = Tensors(tuple(planned), number)
    if len(after.made_of) < len(planned):
        return None
    before, now = ({id(tensor) for tensor in side} for side in (tensors.planned, planned))
    gone = [it.key.split(".") for it in tensors.planned if id(it) not in now]
    added = [(it.key.split("."), it.made_of.shape) for it in planned if id(it) not in before]
    vars(after)["tree"] = regrown(tensors.tree, gone, added)
    return after


def touched(migration: Migration) -> frozenset[str]:
    """The templates that the rules of a migration change or take away, on its example."""
    start = begin(migration.before.example())
    kept = {id(tensor) for tensor in _tried(start, migration) or start.planned}
    keys = (tensor.key for tensor in start.planned if id(tensor) not in kept)
    return frozenset(filter(None, (template_of(migration.before.keys, key) for key in keys)))


def stepped_in_part(
    tensors: Tensors, migration: Migration, needed: Collection[str]
) -> Tensors | None:
    """A migration of another branch: only what its rules touch must be as it expects.

    Args:
        tensors: Their keys may differ from its schema where it touches nothing.
        migration: The migration.
        needed: What it touches, by `touched`.

    Returns:
        None if it touches nothing, or less or more than it should.
    """
    before, after = migration.before, migration.after
    number = tensors.number
    if before.number != after.number:
        if number != before.number:
            return None
        number = after.number
    planned = _tried(tensors, migration)
    if planned is None:
        return None
    same = {id(tensor) for tensor in tensors.planned} & {id(tensor) for tensor in planned}
    olds, news = (
        {template_of(schema.keys, tensor.key) for tensor in side if id(tensor) not in same}
        for schema, side in ((before, tensors.planned), (after, planned))
    )
    optional = {line for line, leaf in before.keys.lines() if leaf.optional}
    if not olds or None in olds or None in news or not {*needed} <= olds | optional:
        return None
    if len({tensor.key for tensor in planned}) < len(planned):
        return None
    return Tensors(tuple(planned), number)


def problem_of(migration: Migration, blocks: int | None = None) -> str | None:
    """Why the rules of a migration do not lead from its schema to the next one; None if they do."""
    tensors = begin(migration.before.example(blocks))
    try:
        planned = ran(tensors.planned, migration.rules)
    except CkptError as error:
        return str(error)
    after = Tensors(tuple(planned), migration.after.number)
    if len(after.made_of) < len(planned):
        keys = Counter(tensor.key for tensor in planned)
        return f"two tensors become {keys.most_common(1)[0][0]}"
    return migration.after.mismatch(after.tree, after.number)
