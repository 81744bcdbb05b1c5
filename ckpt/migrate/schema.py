"""The schema of a state_dict: its keys and shapes, and the numbers that versions have.

Two grains. Exact: every key with its shape; its digest names it. Folded: templates with open sizes,
which one class has at every depth and width. dtype and order are no part of either. A class that
changes the meaning of its keys, and not their names, has a ``ckpt_schema = 2`` to tell that.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckpt.errors import FitError
from ckpt.migrate.fold import COUNTER, Folded, Leaf, examples, folded, merged, mismatch
from ckpt.migrate.tree import Branch, tree_of
from ckpt.rules.prefixes import unwrapped
from ckpt.tensors import StateDict, TensorEntry

NUMBER = "ckpt_schema"  # of a class, and of the metadata of its module in a state_dict
_USUAL = 1  # the version of a module that has none of its own


@dataclass(frozen=True, slots=True)
class Schema:
    """The exact schema of one state_dict.

    Attributes:
        entries: Its keys, those that hold no tensor too.
        number: The `ckpt_schema` of its class, or torch's `_version` if that is not 1; None if it
            has neither, or if that is not known.
    """

    entries: tuple[TensorEntry, ...]
    number: int | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key to shape."""
        return {entry.key: entry.shape for entry in self.entries}

    @property
    def document(self) -> dict[str, Any]:
        """The canonical form."""
        shapes = sorted((key, list(shape)) for key, shape in self.shapes.items())
        return {NUMBER: self.number, "keys": dict(shapes)}

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of the canonical form."""
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def tree(self) -> Branch:
        """Its keys as a tree."""
        return tree_of(self.entries)


@dataclass(frozen=True)  # without slots, for `cached_property`
class FoldedSchema:
    """The folded schema of a class.

    Attributes:
        keys: Its keys, folded.
        number: The `ckpt_schema` of the class; None if it has none.
    """

    keys: Folded
    number: int | None = None

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """Equal for two schemas that match the same state_dicts."""
        lines = ((line, len(leaf.sizes), leaf.optional) for line, leaf in self.leaves)
        return (self.number, *sorted(lines))

    @cached_property
    def leaves(self) -> Sequence[tuple[str, Leaf]]:
        """Its tensors, by their keys as templates."""
        return self.keys.lines()

    @cached_property
    def lines(self) -> frozenset[str]:
        """Its keys as templates."""
        return frozenset(line for line, _ in self.leaves)

    @cached_property
    def ranked(self) -> frozenset[tuple[str, int]]:
        """Its templates with their number of dimensions, but for counters, which may be absent."""
        return frozenset(
            (line, len(leaf.sizes)) for line, leaf in self.leaves if not line.endswith(COUNTER)
        )

    def example(self, blocks: int | None = None) -> Schema:
        """An exact schema that matches.

        Args:
            blocks: The number of alike blocks; None for that of the example.
        """
        return Schema(tuple(examples(self.keys, blocks)), self.number)

    def mismatch(self, tree: Branch, number: int | None) -> str | None:
        """Why a state_dict does not match; None if it does.

        Args:
            tree: Its keys.
            number: The `ckpt_schema` that it was saved with; None if that is not known.
        """
        if number is not None and number != self.number:
            return f"{NUMBER} is {number}, expected {self.number or 'none'}"
        return mismatch(self.keys, tree)


def schema_of(state: StateDict) -> Schema:
    """The exact schema of a state_dict."""
    named = [*state.named, *state.keys[len(state.entries) :]]
    return Schema(tuple(named), root_number(state.versions))


def root_number(versions: Mapping[str, Any] | None) -> int | None:
    """The number of the outermost module that is not a wrapper, such as torch.compile's."""
    roots = [name for name in versions or {} if not name or unwrapped(f"{name}.x") == "x"]
    found = (number_in(versions, name) for name in roots)
    return next((number for number in found if number is not None), None)


def number_in(versions: Mapping[str, Any] | None, module: str = "") -> int | None:
    """The number that the metadata of a state_dict gives a module: `Schema.number`."""
    numbers = (versions or {}).get(module)
    if not isinstance(numbers, Mapping):
        return None
    number = numbers.get(NUMBER, numbers.get("version"))
    return number if type(number) is int and (NUMBER in numbers or number != _USUAL) else None


def other_numbers(
    found: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None
) -> dict[str, int | None]:
    """What the metadata of a state_dict says of its outermost module, and a class says otherwise.

    Args:
        found: The metadata of the state_dict.
        wanted: That of the class.

    Returns:
        Name to the number of the class; None for one that it lacks.
    """
    mine, theirs = ((versions or {}).get("") for versions in (found, wanted))
    if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
        return {}
    names = (NUMBER, "version")
    return {name: theirs.get(name) for name in names if mine.get(name) != theirs.get(name)}


def fold_all(schemas: Sequence[Schema]) -> FoldedSchema:
    """The folded schema of several configurations of one class.

    Raises:
        FitError: A key has more dimensions in one than in another.
    """
    made, *others = (folded(schema.tree) for schema in schemas)
    for other in others:
        both = merged(made, other)
        if both is None:
            raise FitError("a key of another configuration has another number of dimensions")
        made = both
    return FoldedSchema(made, schemas[0].number)


def differing(
    mine: Iterable[TensorEntry], theirs: Iterable[TensorEntry]
) -> tuple[list[str], list[str], list[str]]:
    """Keys that only `mine` has, that only `theirs` has, and of two shapes."""
    one = {entry.key: entry.shape for entry in mine}
    other = {entry.key: entry.shape for entry in theirs}
    reshaped = [key for key, shape in one.items() if other.get(key, shape) != shape]
    return (
        [key for key in one if key not in other],
        [key for key in other if key not in one],
        reshaped,
    )
