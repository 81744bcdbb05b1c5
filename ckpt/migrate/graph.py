"""The graph of migrations: schemas, and the migrations that lead from one to the next.

A state_dict enters where its keys match a schema. The shortest path to the wanted schema is taken;
two ways that would give different tensors are an error. Migrations from branches that were merged
have no path: they are applied in any order, each to the part of the keys that it knows.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ckpt.errors import FitError, PlanError
from ckpt.migrate.branches import by_parts, holding
from ckpt.migrate.chain import Tensors, begin, stepped, stepped_in_part, touched
from ckpt.migrate.fold import COUNTER, folded, template_of
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema, Schema
from ckpt.migrate.way import AmbiguousEntryError, Way, only, results
from ckpt.rules.derived.inverse import inverse
from ckpt.rules.expressions import Source
from ckpt.rules.prefixes import Unwrap

Node = tuple[object, ...]  # the identity of a schema
_MOST_WAYS = 4  # of one length that are compared with each other, whenever one is taken


@dataclass(frozen=True, slots=True)
class Edge:
    """Migrations from one schema to another; several, and in part, where branches were merged."""

    steps: tuple[Migration, ...]
    end: Node
    in_part: bool = False


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

    def leads(self, start: FoldedSchema, end: FoldedSchema) -> bool:
        """Whether a way leads from one schema to another, whatever the sizes.

        Two ways whose results differ count: they are another error.
        """
        for blocks in (2, None):  # of the examples on which it is tried
            try:
                if self.way(start.example(blocks), end.example(blocks), sizes=False) is not None:
                    return True
            except AmbiguousEntryError:
                return True
        return False

    def refusal(self, source: Schema, target: Schema, *, name: str, owner: str) -> FitError:
        """The error about a state_dict that no way leads to a class from.

        Args:
            source: Of the state_dict.
            target: Of the class.
            name: The name of the state_dict.
            owner: That of the class.
        """
        way = self.way(source, target, sizes=False)
        shapes = target.shapes
        for tensor in way.planned if way else ():
            found = tensor.made_of.shape
            if found != (wanted := shapes.get(tensor.key, found)):
                by = f" by {way.names}" if way and way.steps else ""
                mine, theirs = (" ".join(map(str, sizes)) for sizes in (found, wanted))
                text = f"{name} fits {owner}{by} but for sizes: {tensor.key} {mine}, expected"
                return FitError(f"{text} {theirs}", hint="build the class with other arguments")
        known = "none of its migrations leads there" if self.migrations else "it has no migrations"
        return FitError(f"{name} does not fit {owner}, and {known}")

    def _way(self, mine: Tensors, wanted: Tensors, *, enter: str | None, sizes: bool) -> Way | None:
        found = list(_as_it_is(mine, wanted, sizes=sizes)) if enter is None else []
        if found and (mine.number is not None or wanted.number is None):
            return found[0]
        goals = {wanted.number}  # a class without a number has none
        found += self._forward(mine, wanted, goals, enter=enter, sizes=sizes)
        if not any(way.steps for way in found):
            there = self._forward(wanted, mine, self._numbers(mine), enter=enter, sizes=sizes)
            found += [way for it in there if (way := _undone(it, mine, wanted)) is not None]
        return only(found)

    def _numbers(self, tensors: Tensors) -> set[int | None]:
        """The numbers that a state_dict may have: its own, or any if it does not say."""
        if tensors.number is not None:
            return {tensors.number}
        return {None, *(schema.number for schema in self._schemas.values())}

    def _forward(
        self,
        mine: Tensors,
        wanted: Tensors,
        numbers: Collection[int | None],
        *,
        enter: str | None,
        sizes: bool,
    ) -> list[Way]:
        """The shortest ways from every schema that a state_dict matches to the other.

        Args:
            mine: The state_dict.
            wanted: The other.
            numbers: The numbers that the other may have.
            enter: As for `way`.
            sizes: As for `way`.
        """
        ends: list[FoldedSchema] = []
        goals = {node for node, it in self._schemas.items()
                 if it.number in numbers and wanted.agree(it)}  # fmt: skip
        edges = self._edges
        if not goals:  # a class that has changes of several branches, and no migration since
            ends = self._ends(wanted, numbers)
            goals = {end.identity for end in ends}
            merges = [self._merges(end) for end in ends]
            edges = {node: [*found, *(edge for it in merges for edge in it.get(node, ()))]
                     for node, found in edges.items()}  # fmt: skip
        starts = [(replace(mine, number=it.number), path) for node, it in self._schemas.items()
                  if mine.agree(it) for path in _paths(edges, node, goals)]  # fmt: skip
        if not starts:  # it has itself changes of several branches
            starts = [
                (start, (Edge(steps, end.identity, in_part=True),))
                for start in (replace(mine, number=it) for it in self._numbers(mine))
                for end in ends or self._ends(wanted, numbers)
                if (steps := self._by_parts(start, end, partial(_arrived, wanted, sizes=sizes)))
            ]
        ways = (self._walked(*it) for it in starts if enter in (None, it[1][0].steps[0].name))
        return [way for way, after in filter(None, ways) if _arrived(wanted, after, sizes=sizes)]

    @staticmethod
    def _ends(wanted: Tensors, numbers: Iterable[int | None]) -> list[FoldedSchema]:
        keys = folded(wanted.tree)
        return [FoldedSchema(keys, number) for number in numbers]

    def _walked(self, tensors: Tensors, path: Sequence[Edge]) -> tuple[Way, Tensors] | None:
        at: Tensors | None = tensors
        for edge in path:
            for step in edge.steps:
                if at is not None and edge.in_part:
                    at = stepped_in_part(at, step, self._touched[step.name])
                elif at is not None:
                    at = stepped(at, step)
        if at is None:
            return None
        steps = tuple(step for edge in path for step in edge.steps)
        return Way(steps, at.planned, merged=any(edge.in_part for edge in path)), at

    @cached_property
    def _schemas(self) -> dict[Node, FoldedSchema]:
        return {
            schema.identity: schema for it in self.migrations for schema in (it.before, it.after)
        }

    @cached_property
    def _touched(self) -> dict[str, frozenset[str]]:
        return {migration.name: touched(migration) for migration in self.migrations}

    @cached_property
    def _steps(self) -> dict[Node, list[Edge]]:
        """The migrations that begin at each schema, or at one that its state_dicts match too."""
        edges: dict[Node, list[Edge]] = {node: [] for node in self._schemas}
        for migration in self.migrations:
            edge = Edge((migration,), migration.after.identity)
            edges[migration.before.identity].append(edge)
        ends = {migration.after.identity for migration in self.migrations}
        loose = [it for it in self.migrations if it.before.identity not in ends]
        for end in ends:
            for migration in loose if not edges[end] else ():
                if _meet(self._schemas[end], migration.before):
                    edges[end].append(Edge((migration,), migration.after.identity))
        return edges

    @cached_property
    def _edges(self) -> dict[Node, list[Edge]]:
        """Those, and what leads on from the last schema of each branch to where it was merged."""
        begun = [self._schemas[node] for node, found in self._steps.items() if found]
        return {
            node: [*found] or [*self._merge(node, begun)] for node, found in self._steps.items()
        }

    def _merge(self, node: Node, into: Sequence[FoldedSchema]) -> Iterator[Edge]:
        """How the last schema of a branch becomes the nearest of those that may contain it."""
        last = begin(self._schemas[node].example())
        added = [it for it in self.migrations if it.after.identity == node]
        likely = {it.identity: it for step in added for it in holding(into, step)}.values()
        for end in sorted(likely, key=lambda schema: len(last.lines ^ schema.lines)):
            if end.identity != node and (steps := self._by_parts(last, end, partial(_agree, end))):
                yield Edge(steps, end.identity, in_part=True)
                return

    def _merges(self, end: FoldedSchema) -> dict[Node, list[Edge]]:
        """How the last schemas of branches become a class that no migration knows."""
        known = self._merges_known.get(end.identity)
        if known is None:
            lasts = [node for node, found in self._edges.items() if not found]
            known = {node: [*self._merge(node, [end])] for node in lasts}
            self._merges_known[end.identity] = known
        return known

    @cached_property
    def _merges_known(self) -> dict[Node, dict[Node, list[Edge]]]:
        return {}

    def _by_parts(
        self, start: Tensors, end: FoldedSchema, arrived: Callable[[Tensors], bool]
    ) -> tuple[Migration, ...]:
        return by_parts(start, self.migrations, self._touched, end, arrived)

    def cycle(self) -> tuple[Migration, ...]:
        """Migrations that lead back to the schema where they begin; none if none do."""
        for node in self._schemas:
            for path in _paths(self._steps, node, {node}):
                return tuple(step for edge in path for step in edge.steps)
        return ()

    def disagreement(self) -> tuple[Way, Way] | None:
        """Two ways between the same schemas that make different tensors, on their examples."""
        ends = {migration.after.identity for migration in self.migrations}
        for node, schema in self._schemas.items():
            if node not in ends and (found := self._two_ways(node, begin(schema.example()))):
                return found
        return None

    def _two_ways(self, node: Node, start: Tensors) -> tuple[Way, Way] | None:
        reached: dict[Node, tuple[Way, Tensors]] = {node: (Way((), start.planned), start)}
        waiting = deque([node])
        while waiting:
            way, tensors = reached[node := waiting.popleft()]
            for edge in self._steps[node]:
                walked = self._walked(tensors, [edge])
                if walked is None:
                    continue
                made = replace(walked[0], steps=(*way.steps, *edge.steps)), walked[1]
                other = reached.setdefault(edge.end, made)
                if other is made:
                    waiting.append(edge.end)
                elif results(other[0]) != results(made[0]):
                    return other[0], made[0]
        return None


def _paths(
    edges: Mapping[Node, Sequence[Edge]], start: Node, goals: Collection[Node]
) -> Iterator[tuple[Edge, ...]]:
    """The shortest paths, all of one length."""
    waiting: deque[tuple[Node, tuple[Edge, ...]]] = deque([(start, ())])
    seen: dict[Node, int] = {start: 0}
    found: list[tuple[Edge, ...]] = []
    while waiting and len(found) < _MOST_WAYS:
        node, path = waiting.popleft()
        if found and len(path) >= len(found[0]):
            break
        for edge in edges.get(node, ()):
            if edge.end in goals:
                found.append((*path, edge))
            if seen.setdefault(edge.end, len(path) + 1) == len(path) + 1:
                waiting.append((edge.end, (*path, edge)))
    yield from found


def _agree(schema: FoldedSchema, tensors: Tensors) -> bool:
    return tensors.agree(schema)


def _as_it_is(mine: Tensors, wanted: Tensors, *, sizes: bool) -> Iterator[Way]:
    same_number = mine.number is None or mine.number == wanted.number
    if same_number and _arrived(wanted, mine, sizes=sizes):
        yield Way((), mine.planned)


def _arrived(wanted: Tensors, tensors: Tensors, *, sizes: bool) -> bool:
    """Whether tensors are what is wanted; torch adds the counters that a file lacks."""
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


def _meet(one: FoldedSchema, other: FoldedSchema) -> bool:
    """Whether a state_dict of one schema also matches the other."""
    pairs = ((one, other), (other, one))
    return any(_may_match(a, b) and begin(a.example()).agree(b) for a, b in pairs)


def _may_match(one: FoldedSchema, other: FoldedSchema) -> bool:
    """Whether the other has the keys without a number of all state_dicts of one; that is quick."""
    needed = (line for line, leaf in one.leaves if not leaf.optional and "{" not in line)
    return all(template_of(other.keys, line) is not None for line in needed)


def of_class(migrations: Sequence[Migration], definition: str) -> Graph:
    """The graph of the migrations that belong to a class, ``net.py:Net``."""
    return Graph(tuple(it for it in migrations if definition in it.definitions))
