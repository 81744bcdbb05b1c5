"""Trial: the rules of a migration, run on the examples in its schemas."""

from collections import Counter

from ckpt.errors import CkptError
from ckpt.migrate.chain import Tensors, begin, ran
from ckpt.migrate.fold import examples
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema, Schema


def example_of(schema: FoldedSchema, blocks: int | None = None) -> Schema:
    """An exact schema that matches a folded one.

    Args:
        schema: What it matches.
        blocks: The number of alike blocks; None for that of its example.
    """
    return Schema(tuple(examples(schema.keys, blocks)), schema.number)


def problem_of(migration: Migration, blocks: int | None = None) -> str | None:
    """Why the rules of a migration do not lead from its schema to the next one; None if they do."""
    tensors = begin(example_of(migration.before, blocks))
    try:
        planned = ran(tensors.planned, migration.rules)
    except CkptError as error:
        return str(error)
    after = Tensors(tuple(planned), migration.after.number)
    if len(after.made_of) < len(planned):
        keys = Counter(tensor.key for tensor in planned)
        return f"two tensors become {keys.most_common(1)[0][0]}"
    return migration.after.mismatch(after.tree, after.number)
