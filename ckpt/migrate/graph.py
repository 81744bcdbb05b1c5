"""The graph of migrations: schemas, and the migrations that lead from one to the next.

A state_dict enters where its keys match a schema. The shortest path to the wanted schema is taken;
two ways that would give different tensors are an error. Migrations from branches that were merged
have no path: they are applied in any order, each to the part of the keys that it knows.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ckpt.errors import CkptError, PlanError
from ckpt.migrate.chain import Tensors, begin, ran, stepped, stepped_in_part
from ckpt.migrate.fold import COUNTER, examples
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema, Schema
from ckpt.migrate.tree import tree_of
from ckpt.rules.expressions import Source
from ckpt.rules.inverse import inverse
from ckpt.rules.planned import Planned, Rule
from ckpt.rules.prefixes import Unwrap

Node = tuple[object, ...]  # the identity of a schema
_MOST_WAYS = 64  # of one length that are compared with each other
_MOST_STEPS = 2_000  # that are tried where branches were merged


class AmbiguousEntryError(CkptError):
    """A state_dict can be read as more than one schema, and the results would differ."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Way:
    """How a state_dict becomes another.

    Attributes:
        steps: The migrations, in order; none if it fits as it is.
        back: Whether they are undone, last to first.
        planned: How each tensor of the result is made of the source.
        merged: Whether they are of branches that no path of schemas connects.
        unwraps: Whether the prefixes of wrappers are removed first.
    """

    steps: tuple[Migration, ...]
    planned: tuple[Planned, ...] = field(repr=False)
    back: bool = False
    merged: bool = False
    unwraps: bool = False

    @property
    def rules(self) -> list[Rule]:
        """The rules of all steps, in order; of the way there, if this is the way back."""
        unwrap: list[Rule] = [Unwrap()] if self.unwraps else []
        return [*unwrap, *(rule for step in self.steps for rule in step.rules)]

    @property
    def names(self) -> str:
        """The migrations in words: ``conv-to-embed, then split-qkv``."""
        steps = reversed(self.steps) if self.back else self.steps
        return ("back by " if self.back else "") + ", then ".join(step.name for step in steps)


@dataclass(frozen=True)  # without slots, for `cached_property`
class Graph:
    """The migrations of one class."""

    migrations: tuple[Migration, ...]

    def way(
        self, source: Schema, target: Schema, *, enter: str | None = None, sizes: bool = True
    ) -> Way | None:
        """How a state_dict becomes one that fits a class; None if the migrations do not say.

        Args:
            source: Of the state_dict.
            target: Of the class.
            enter: The first migration, where the keys do not tell which one it is.
            sizes: Whether shapes must agree in size, or only in their number of dimensions.

        Raises:
            AmbiguousEntryError: There are two ways, and their results differ.
        """
        mine, wanted = begin(source), begin(target)
        found = self._way(mine, wanted, enter=enter, sizes=sizes)
        bare = Unwrap().run(mine.planned)
        if found is None and any(a is not b for a, b in zip(mine.planned, bare, strict=True)):
            found = self._way(replace(mine, planned=tuple(bare)), wanted, enter=enter, sizes=sizes)
            return replace(found, unwraps=True) if found and not found.back else None
        return found

    def _way(self, mine: Tensors, wanted: Tensors, *, enter: str | None, sizes: bool) -> Way | None:
        found = list(self._as_it_is(mine, wanted, sizes=sizes)) if enter is None else []
        if found and (mine.number is not None or wanted.number is None):
            return found[0]
        found += self._forward(mine, wanted, enter=enter, sizes=sizes)
        if not found:
            back = (_undone(way, mine, wanted) for way in
                    self._forward(wanted, mine, enter=enter, sizes=sizes))  # fmt: skip
            found = [way for way in back if way is not None]
        if not found and (way := self._merged(mine, wanted, sizes=sizes)):
            found = [way]
        return _only(found)

    def _as_it_is(self, mine: Tensors, wanted: Tensors, *, sizes: bool) -> Iterator[Way]:
        same_number = mine.number is None or mine.number == wanted.number
        if same_number and _arrived(mine, wanted, sizes=sizes):
            yield Way((), mine.planned)

    def _forward(
        self, mine: Tensors, wanted: Tensors, *, enter: str | None, sizes: bool
    ) -> Iterator[Way]:
        goals = {node for node, schema in self._schemas.items() if wanted.agree(schema)}
        for node, schema in self._schemas.items():
            if mine.agree(schema):
                for steps in self._paths(node, goals):
                    if enter is not None and steps[0].name != enter:
                        continue
                    after = _walked(mine, steps)
                    if after is not None and _arrived(after, wanted, sizes=sizes):
                        yield Way(steps, after.planned)

    @cached_property
    def _schemas(self) -> dict[Node, FoldedSchema]:
        return {
            schema.identity: schema for it in self.migrations for schema in (it.before, it.after)
        }

    @cached_property
    def _edges(self) -> dict[Node, list[Migration]]:
        """The migrations that begin at each schema, or at one that its state_dicts match too."""
        begins: dict[Node, list[Migration]] = {it: [] for it in self._schemas}
        for migration in self.migrations:
            begins[migration.before.identity].append(migration)
        ends = {migration.after.identity for migration in self.migrations}
        loose = [it for it in self.migrations if it.before.identity not in ends]
        for end in ends:
            for migration in loose if not begins[end] else ():
                if _meet(self._schemas[end], migration.before):
                    begins[end].append(migration)
        return begins

    def _paths(self, start: Node, goals: set[Node]) -> Iterator[tuple[Migration, ...]]:
        """The shortest paths, all of one length."""
        waiting: deque[tuple[Node, tuple[Migration, ...]]] = deque([(start, ())])
        seen: dict[Node, int] = {start: 0}
        found: list[tuple[Migration, ...]] = []
        while waiting and len(found) < _MOST_WAYS:
            node, steps = waiting.popleft()
            if found and len(steps) >= len(found[0]):
                break
            for migration in self._edges[node]:
                after = migration.after.identity
                if seen.setdefault(after, len(steps) + 1) < len(steps) + 1:
                    continue
                way = (*steps, migration)
                waiting.append((after, way))
                if after in goals:
                    found.append(way)
        yield from found

    def cycle(self) -> tuple[Migration, ...]:
        """Migrations that lead back to the schema where they begin; none if none do."""
        for node in self._schemas:
            for path in self._paths(node, {node}):
                return path
        return ()

    def disagreement(self) -> tuple[Way, Way] | None:
        """Two ways between the same schemas that make different tensors, on their examples."""
        ends = {migration.after.identity for migration in self.migrations}
        for node, schema in self._schemas.items():
            if node not in ends:
                start = begin(Schema(tuple(examples(schema.keys, None)), schema.number))
                if found := self._two_ways(node, start):
                    return found
        return None

    def _two_ways(self, node: Node, start: Tensors) -> tuple[Way, Way] | None:
        reached: dict[Node, tuple[Tensors, tuple[Migration, ...]]] = {node: (start, ())}
        waiting = deque([node])
        while waiting:
            node = waiting.popleft()
            tensors, steps = reached[node]
            for migration in self._edges[node]:
                after = stepped(tensors, migration)
                if after is None:
                    continue
                way = (after, (*steps, migration))
                other = reached.setdefault(migration.after.identity, way)
                if other is way:
                    waiting.append(migration.after.identity)
                elif dict(other[0].made_of) != dict(after.made_of):
                    return Way(other[1], other[0].planned), Way(way[1], after.planned)
        return None

    def _merged(self, mine: Tensors, wanted: Tensors, *, sizes: bool) -> Way | None:
        """The migrations of several branches, each applied to its part of the keys."""
        waiting: deque[tuple[Tensors, tuple[Migration, ...]]] = deque([(mine, ())])
        seen = {mine.form: (mine, waiting[0][1])}
        while waiting and len(seen) < _MOST_STEPS:
            tensors, steps = waiting.popleft()
            if steps and _arrived(tensors, wanted, sizes=sizes):
                return Way(steps, tensors.planned, merged=True)
            for after, more in self._next(tensors, steps):
                other = seen.setdefault(after.form, (after, more))
                if other[0] is after:
                    waiting.append((after, more))
                elif dict(other[0].made_of) != dict(after.made_of):
                    raise _differ(Way(other[1], other[0].planned), Way(more, after.planned))
        return None

    def _next(
        self, tensors: Tensors, steps: tuple[Migration, ...]
    ) -> list[tuple[Tensors, tuple[Migration, ...]]]:
        """What may follow: all migrations at once that touch different keys, else each of them."""
        left = [it for it in self.migrations if it not in steps]
        parts = [(it, part) for it in left if (part := stepped_in_part(tensors, it))]
        alone = [
            migration
            for migration, part in parts
            if not any(part.touched & other.touched for it, other in parts if it is not migration)
        ]
        if not alone:
            return [(part.after, (*steps, migration)) for migration, part in parts]
        for migration in alone:
            part = stepped_in_part(tensors, migration)
            if part is None:
                return []
            tensors = part.after
        return [(tensors, (*steps, *alone))]


def _walked(tensors: Tensors, steps: Sequence[Migration]) -> Tensors | None:
    at: Tensors | None = tensors
    for migration in steps:
        at = None if at is None else stepped(at, migration)
    return at


def _arrived(tensors: Tensors, wanted: Tensors, *, sizes: bool) -> bool:
    """Whether they are what is wanted; torch adds the counters that a file lacks."""
    if tensors.form == wanted.form:
        return True
    mine, theirs = ({key: shape if sizes else (len(shape),) for key, shape in it.form}
                    for it in (tensors, wanted))  # fmt: skip
    lacking = theirs.keys() - mine.keys()
    return all(key.endswith(COUNTER) for key in lacking) and all(
        theirs.get(key) == shape for key, shape in mine.items()
    )


def _undone(way: Way, mine: Tensors, wanted: Tensors) -> Way | None:
    """The way back from `mine` to `wanted`, from which `way` leads; None if that is not exact."""
    try:
        planned = inverse([Source(e.key, e.dtype, e.shape) for e in wanted.entries], way.planned)
    except PlanError:
        return None
    made = {tensor.key for tensor in way.planned}
    return Way(way.steps, tuple(planned), back=True) if made == {*mine.made_of} else None


def _only(found: Sequence[Way]) -> Way | None:
    """The first of several ways with one result."""
    for way in found[1:]:
        if _results(way) != _results(found[0]):
            raise _differ(found[0], way)
    return found[0] if found else None


def _results(way: Way) -> dict[str, object]:
    return {tensor.key: tensor.made_of for tensor in way.planned}


def _differ(one: Way, other: Way) -> AmbiguousEntryError:
    mine, theirs = _results(one), _results(other)
    key = next(key for key in (*mine, *theirs) if mine.get(key) != theirs.get(key))
    names = [way.names or "no migration" for way in (one, other)]
    return AmbiguousEntryError(
        f"two ways lead there, and make {key} of different tensors: {names[0]}; and {names[1]}",
        hint=f"--enter {(one.steps or other.steps)[0].name}  says which migration comes first",
    )


def _meet(one: FoldedSchema, other: FoldedSchema) -> bool:
    """Whether a state_dict of one schema also matches the other."""
    pairs = ((one, other), (other, one))
    return any(b.mismatch(tree_of(examples(a.keys, None)), a.number) is None for a, b in pairs)


def problem_of(migration: Migration, blocks: int | None = None) -> str | None:
    """Why the rules of a migration do not lead from its schema to the next one; None if they do.

    Args:
        migration: The migration.
        blocks: The number of alike blocks; None for that of its example.
    """
    entries = examples(migration.before.keys, blocks)
    tensors = begin(Schema(tuple(entries), migration.before.number))
    try:
        planned = ran(tensors.planned, migration.rules)
    except CkptError as error:
        return str(error)
    after = Tensors(tuple(planned), migration.after.number)
    if len(after.made_of) < len(planned):
        keys = Counter(tensor.key for tensor in planned)
        return f"two tensors become {keys.most_common(1)[0][0]}"
    return migration.after.mismatch(after.tree, after.number)


def of_class(migrations: Sequence[Migration], definition: str) -> Graph:
    """The graph of the migrations that belong to a class, ``net.py:Net``."""
    return Graph(tuple(it for it in migrations if definition in it.definitions))
