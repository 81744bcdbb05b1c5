"""The earlier forms of a class, and the migrations that lead from each to the class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema
from ckpt.migrate.way import Way

BLOCKS = (2, None)  # of the examples that tell the way


@dataclass(frozen=True, slots=True)
class EarlierForm:
    """A form of the class from which migrations lead to it.

    Attributes:
        schema: Its keys.
        ways: From its examples to those of the class, by `BLOCKS`; all have the same migrations.
    """

    schema: FoldedSchema
    ways: Mapping[int | None, Way]

    @property
    def steps(self) -> tuple[Migration, ...]:
        """The migrations, in order."""
        return next(iter(self.ways.values())).steps


def earlier_forms(graph: Graph, present: FoldedSchema) -> Iterator[EarlierForm]:
    """The forms that the graph knows, and from which it leads to the class.

    Raises:
        AmbiguousEntryError: Two ways lead there, and make different tensors.
    """
    schemas = {it.identity: it for m in graph.migrations for it in (m.before, m.after)}
    for schema in schemas.values():
        ways = {it: way for it in BLOCKS if (way := _way(graph, schema, present, it))}
        first = next(iter(ways.values()), None)
        if first and first.steps:
            same = {it: way for it, way in ways.items() if way.steps == first.steps}
            yield EarlierForm(schema, same)


def _way(
    graph: Graph, schema: FoldedSchema, present: FoldedSchema, blocks: int | None
) -> Way | None:
    way = graph.way(schema.example(blocks), present.example(blocks), sizes=False)
    return None if way is None or way.back else way
