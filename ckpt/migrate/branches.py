"""Merged branches: migrations made for other schemas, each applied to its part of the keys.

Two branches that each add a migration leave no path from the one to the other. What was merged has
both changes, and a migration says which keys it changes: the rest may differ.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush

from ckpt.migrate.chain import Tensors, stepped_in_part
from ckpt.migrate.fold import has_all
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema
from ckpt.migrate.way import Way, differ, results

_MOST_TRIED = 200  # sets of migrations
Line = tuple[str, int]  # a template and its number of dimensions


def by_parts(
    start: Tensors,
    migrations: Sequence[Migration],
    touched: Mapping[str, Collection[str]],
    end: FoldedSchema,
    arrived: Callable[[Tensors], bool],
) -> tuple[Migration, ...]:
    """The migrations that lead from a state_dict to another, in some order that works.

    Args:
        start: The state_dict, with its number; None means that it has none.
        migrations: Those that may be used.
        touched: The templates that each touches, by its name.
        end: The folded schema of the other.
        arrived: Whether keys and shapes are those of the other one.

    Returns:
        None of them if they do not lead there.

    Raises:
        AmbiguousEntryError: Another order makes other tensors.
    """
    possible, wanted = reflected(migrations, end), {line for line, _ in end.ranked}
    waiting: list[tuple[tuple[int, int], Tensors, tuple[Migration, ...]]] = [((0, 0), start, ())]
    seen: dict[object, Way] = {}
    while waiting and len(seen) < _MOST_TRIED:
        _, tensors, steps = heappop(waiting)
        if steps and tensors.number == end.number and arrived(tensors):
            return steps
        for migration in possible:
            if migration in steps or not has_all(tensors.tree, touched[migration.name]):
                continue
            after = stepped_in_part(tensors, migration, touched[migration.name])
            if after is None:
                continue
            way = Way((*steps, migration), after.planned)
            other = seen.setdefault((after.form, after.number), way)
            if other is way:
                far = sum(line not in wanted for line in after.lines)
                heappush(waiting, ((far, len(seen)), after, way.steps))
            elif results(other) != results(way):
                raise differ(other, way)
    return ()


def reflected(migrations: Sequence[Migration], end: FoldedSchema) -> list[Migration]:
    """The migrations that a schema may have behind it.

    What they add is there, or is taken away by another of them; what they take away is not there.
    """
    there, found = end.ranked, list[Migration]()
    left = [(migration, *changed(migration)) for migration in migrations]
    while True:
        more = [it for it in left if it[2] <= there and not it[1] & end.ranked]
        if not more:
            return found
        found += [migration for migration, _, _ in more]
        there = there.union(*(gone for _, gone, _ in more))
        left = [it for it in left if it not in more]


def holding(schemas: Iterable[FoldedSchema], migration: Migration) -> list[FoldedSchema]:
    """The schemas that have what a migration adds, and lack what it takes away."""
    gone, added = changed(migration)
    return [it for it in schemas if added <= it.ranked and not gone & it.ranked]


def changed(migration: Migration) -> tuple[frozenset[Line], frozenset[Line]]:
    """The templates that a migration takes away, and those that it adds."""
    before, after = migration.before.ranked, migration.after.ranked
    return before - after, after - before
