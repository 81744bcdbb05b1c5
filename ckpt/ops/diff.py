"""Diff: what differs between any two of version, file and definition."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckpt import digest
from ckpt.difference import KeyDiff, diff_entries
from ckpt.formats.writing import tensor_bytes
from ckpt.ops.fitting import Fitting, fitting
from ckpt.ops.opened import Named, Opened, OpenedDefinition, OpenedFile, open_ref
from ckpt.ops.records import Fact, differing_facts
from ckpt.ops.registry import Registry
from ckpt.ops.ties import ties_of
from ckpt.tensors import TensorEntry

# Up to this many bytes are hashed without being asked to: it takes about 0.15 s.
READ_UNASKED_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two refs.

    Attributes:
        before: Name of the first side.
        after: Name of the second.
        diff: By key, shape, dtype and, where they were read, bytes.
        fitting: Where one side is a definition: whether the other fits it.
        unread_bytes: Bytes that were not read, and so not compared.
        facts: What is recorded differently, or held differently besides the tensors.
    """

    before: str
    after: str
    diff: KeyDiff
    fitting: Fitting | None
    unread_bytes: int
    facts: tuple[Fact, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything differs, as far as it was compared."""
        return self.diff.differs


def diff(
    before: Named, after: Named, *, registry: Registry | None = None, values: bool | None = None
) -> Comparison:
    """Compare two refs.

    Args:
        before: A version, a file or a definition.
        after: Another.
        registry: Where versions are looked up.
        values: Whether the bytes of files are read and hashed; None reads them where it is
            little. Versions are compared by the digests in their manifests, at no cost.

    Raises:
        RefError: A side names nothing.
        FormatError: A file is no checkpoint that can be read.
    """
    registry = registry or Registry()
    with open_ref(before, registry) as a, open_ref(after, registry) as b:
        sides = (list(a.entries), list(b.entries))
        wanted = _worth_reading(*sides) if not _is_definition(a, b) else ({}, {})
        cost = sum(entry.nbytes for side in wanted for entry in side.values())
        if values or (values is None and cost <= READ_UNASKED_BYTES):
            sides = (_hashed(a, sides[0], wanted[0]), _hashed(b, sides[1], wanted[1]))
            cost = 0
        difference = diff_entries(*sides, ties=(ties_of(a), ties_of(b)))
        facts = tuple(differing_facts(a, b, registry))
        return Comparison(a.name, b.name, difference, _fitting(a, b), cost, facts)


def _is_definition(*sides: Opened) -> bool:
    return any(isinstance(side, OpenedDefinition) for side in sides)


def _fitting(a: Opened, b: Opened) -> Fitting | None:
    match a, b:
        case _, OpenedDefinition():
            return fitting(a.entries, b.name, b.entries)
        case OpenedDefinition(), _:
            return fitting(b.entries, a.name, a.entries)
    return None


def _worth_reading(
    before: Sequence[TensorEntry], after: Sequence[TensorEntry]
) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """The entries without a digest whose bytes can decide something.

    That is: a twin of the same dtype and shape is on the other side, under the same key or,
    where the key is gone, under any other.
    """
    old = {entry.key: entry for entry in before}
    new = {entry.key: entry for entry in after}
    return _undecided(old, new), _undecided(new, old)


def _undecided(
    mine: dict[str, TensorEntry], other: dict[str, TensorEntry]
) -> dict[str, TensorEntry]:
    loose = Counter((e.dtype, e.shape) for key, e in other.items() if key not in mine)
    return {
        key: entry
        for key, entry in mine.items()
        if entry.digest is None
        and (
            (other[key].dtype, other[key].shape) == (entry.dtype, entry.shape)
            if key in other
            else loose[entry.dtype, entry.shape]
        )
    }


def _hashed(
    side: Opened, entries: Sequence[TensorEntry], wanted: dict[str, TensorEntry]
) -> list[TensorEntry]:
    if not isinstance(side, OpenedFile):
        return list(entries)
    return [
        replace(entry, digest=digest.of_chunks(tensor_bytes(side.checkpoint.source, entry)))
        if entry.key in wanted
        else entry
        for entry in entries
    ]
