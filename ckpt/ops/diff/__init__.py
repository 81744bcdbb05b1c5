"""Diff: what differs between any two of version, file and definition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from ckpt.compare.keys import KeyDiff, diff_entries
from ckpt.compare.pairs import Sides, equal_bytes, hashed, measured
from ckpt.compare.ties import ties_of
from ckpt.compare.values import ValueDiff, comparable
from ckpt.errors import UsageError
from ckpt.infer.fitting import Fitting, fitting
from ckpt.io.files import Told, untold
from ckpt.opened import Named, Opened, OpenedDefinition, OpenedFile, OpenedState, open_ref
from ckpt.ops.diff.records import Fact, differing_facts
from ckpt.ops.diff.renamed import likely_renames
from ckpt.registry.registry import Registry
from ckpt.tensors import TensorEntry

# Up to this many bytes are read without being asked to: it takes about 0.15 s.
READ_UNASKED_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class PairValues:
    """How far the tensors of one key are apart.

    Attributes:
        before: Of the first side.
        after: Of the second; of the same shape.
        found: The figures.
    """

    before: TensorEntry
    after: TensorEntry
    found: ValueDiff


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two refs.

    Attributes:
        before: Name of the first side.
        after: Name of the second.
        diff: By key, shape, dtype and, where they were read, bytes.
        fitting: Where one side is a definition: whether the other fits it.
        unread_bytes: Bytes that were not read, and so not compared.
        values: Where they were asked for, of each changed tensor and of each that was re-typed
            from one floating dtype to another; what changed most is first. First of all is what
            has NaN or infinity where the other side has none.
        tolerance: Changed tensors that are this close are not held to differ.
        inferred: (removed key, added key), where names and shapes say that one became the other.
        facts: What is recorded differently, or held differently besides the tensors.
    """

    before: str
    after: str
    diff: KeyDiff
    fitting: Fitting | None
    unread_bytes: int
    values: tuple[PairValues, ...] | None = None
    tolerance: float | None = None
    inferred: tuple[tuple[str, str], ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def within(self) -> tuple[PairValues, ...]:
        """The changed tensors that are within the tolerance; none without one."""
        if self.tolerance is None:
            return ()
        return tuple(
            pair
            for pair in self.values or ()
            if pair.before.dtype == pair.after.dtype and pair.found.within(self.tolerance)
        )

    @property
    def differs(self) -> bool:
        """Whether anything differs, as far as it was compared, by more than the tolerance."""
        if self.within and len(self.within) == len(self.diff.changed):
            return replace(self.diff, changed=()).differs
        return self.diff.differs


def diff(
    before: Named,
    after: Named,
    *,
    registry: Registry | None = None,
    values: bool | None = None,
    tolerance: float | None = None,
    unasked: float = READ_UNASKED_BYTES,
    arguments: Mapping[str, object] | None = None,
    told: Told = untold,
) -> Comparison:
    """Compare two refs.

    Args:
        before: A version, a file or a definition.
        after: Another.
        registry: Where versions are looked up.
        values: Whether the bytes of files are read, and how far apart the values are is worked
            out; None only says whether bytes differ, and reads files where it is little. Versions
            are compared by the digests in their manifests, at no cost.
        tolerance: The greatest difference of one number that is none; asks for `values`.
        unasked: Up to how many bytes are little.
        arguments: What definitions are called with.
        told: Told how far it is.

    Raises:
        RefError: A side names nothing.
        FormatError: A file is no checkpoint that can be read.
        IntegrityError: A tensor that changed is damaged in the registry.
    """
    if tolerance is not None and not 0 <= tolerance < inf:
        raise UsageError(f"a tolerance of {tolerance}: it is a number from 0 on")
    values = True if tolerance is not None else values
    registry = registry or Registry()
    with (
        open_ref(before, registry, arguments) as a,
        open_ref(after, registry, arguments) as b,
    ):
        if isinstance(a, OpenedDefinition) or isinstance(b, OpenedDefinition):
            difference = diff_entries(a.entries, b.entries)
            return Comparison(a.name, b.name, difference, _fitting(a, b), 0)
        sides = Sides(a, b)
        old, new = _worth_reading(a.entries, b.entries)
        cost = sum(entry.nbytes for side in (old, new) for entry in side.values())
        if values or (values is None and cost <= unasked):
            difference, cost = _read(sides, old, new, told), 0
        else:
            difference = _compared(sides, a.entries, b.entries)
        return Comparison(
            a.name,
            b.name,
            difference,
            fitting=None,
            unread_bytes=cost,
            values=_values(sides, difference, told) if values else None,
            tolerance=tolerance,
            inferred=tuple(likely_renames(difference)),
            facts=tuple(differing_facts(a, b, registry)),
        )


def _read(
    sides: Sides, old: dict[str, TensorEntry], new: dict[str, TensorEntry], told: Told
) -> KeyDiff:
    """Compare bytes: of one key in two files directly, all others by their digests."""
    pairs = [(entry, new[key]) for key, entry in old.items() if key in new]
    equal = equal_bytes(sides, pairs, told=told)
    # Of what changed, digests tell what was swapped; where much changed, that is unlikely.
    changed = sum(2 * old[key].nbytes for key, same in equal.items() if not same)
    told_apart = {key for key, same in equal.items() if same or changed > READ_UNASKED_BYTES}
    mine, theirs = (
        [entry for key, entry in side.items() if key not in told_apart] for side in (old, new)
    )
    return _compared(
        sides, _hashed(sides.before, mine, told), _hashed(sides.after, theirs, told), equal
    )


def _compared(
    sides: Sides,
    before: Sequence[TensorEntry],
    after: Sequence[TensorEntry],
    equal: Mapping[str, bool] | None = None,
) -> KeyDiff:
    ties = ties_of(sides.before), ties_of(sides.after)
    return diff_entries(before, after, equal=equal, ties=ties)


def _values(sides: Sides, difference: KeyDiff, told: Told) -> tuple[PairValues, ...]:
    retyped = [
        (a, b) for a, b in difference.retyped if a.shape == b.shape and comparable(a.dtype, b.dtype)
    ]
    found = measured(sides, [*difference.changed, *retyped], told=told)
    pairs = (PairValues(a, b, values) for (a, b), values in found)
    return tuple(sorted(pairs, key=_change, reverse=True))


def _change(pair: PairValues) -> tuple[bool, float, float]:
    found = pair.found
    relative = inf if found.relative_l2 is None else found.relative_l2
    return found.incomparable > 0, relative, found.max_abs or 0.0


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


def _hashed(side: OpenedState, wanted: Sequence[TensorEntry], told: Told) -> list[TensorEntry]:
    """The entries of a side, with the digests of those that are wanted."""
    if not isinstance(side, OpenedFile):
        return list(side.entries)
    digests = hashed(side, wanted, told=told)
    return [
        replace(entry, digest=digests[entry.key]) if entry.key in digests else entry
        for entry in side.entries
    ]
