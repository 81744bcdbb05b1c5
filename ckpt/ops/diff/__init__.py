"""Diff: show what differs between two refs or things in memory: weights, or a definition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, ClassVar

from ckpt.compare.keys import KeyDiff, Pair, compare_entries
from ckpt.compare.pairs import Sides, equal_bytes, hashed, measure
from ckpt.compare.ties import ties_of
from ckpt.compare.values import ValueDiff, comparable
from ckpt.errors import UsageError
from ckpt.formats.opaque import ForeignGlobal
from ckpt.in_memory import STATE_DICT
from ckpt.io.files import Told, untold
from ckpt.opened import open_ref
from ckpt.opened.named import WeightsOrClass
from ckpt.opened.states import OpenedDefinition, OpenedFile, OpenedMemory, OpenedState
from ckpt.ops.diff.no_tensors import entries_without_tensors
from ckpt.ops.diff.records import Fact, differing_facts
from ckpt.ops.diff.renamed import likely_renames
from ckpt.ops.diff.side_files import FileChange, differing_files
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.tensors import NOT_A_TENSOR, TensorEntry

if TYPE_CHECKING:
    from ckpt.infer.fitting import Fitting

# Files up to this many bytes are compared without being asked; that takes about 0.15 s.
READ_UNASKED_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class PairValues:
    """How far apart the two tensors of one key are, or of a key that probably was renamed.

    Attributes:
        before: On the first side.
        after: On the second side; of the same shape.
        found: The figures.
    """

    before: TensorEntry
    after: TensorEntry
    found: ValueDiff


@dataclass(frozen=True, slots=True, repr=False)
class RefDiff(Printed):
    """The difference between two refs.

    Attributes:
        before: Name of the first side.
        after: Name of the second side.
        diff: By key, shape, dtype and, if they were read, bytes.
        fitting: If one side is a definition: whether the other fits it.
        unread_bytes: Bytes that were not read, and so not compared.
        values: If asked for, the figures of every changed tensor, of every tensor whose dtype
            went from one float to another, and of the pairs of `inferred`, largest change first.
            At the very top are tensors with NaN or infinity where the other side has none.
        tolerance: Tensors this close count as equal, also if their floating dtypes differ.
        inferred: (removed key, added key) of every pair that is probably one renamed tensor.
        facts: The differences of the records, and of what the files hold besides tensors.
        code: By side, the globals that run code when it is unpickled.
        files: The side files that differ.
    """

    VIEW: ClassVar = "ckpt.show.diff:diff_text"

    before: str
    after: str
    diff: KeyDiff
    fitting: "Fitting | None" = None
    unread_bytes: int = 0
    values: tuple[PairValues, ...] | None = None
    tolerance: float | None = None
    inferred: tuple[tuple[str, str], ...] = ()
    facts: tuple[Fact, ...] = ()
    code: Mapping[str, Sequence[ForeignGlobal]] = field(default_factory=dict)
    files: tuple[FileChange, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs.

        Raises:
            UsageError: Not all bytes were compared, and those that were are the same.
        """
        if self.unread_bytes and not self.differs:
            raise UsageError(
                f"{self.before} -> {self.after}: {self.unread_bytes:,} bytes were not compared",
                hint="values=True  reads them",
            )
        return self.differs

    def _brief(self) -> str:
        if self.fitting is not None:
            return f"{self.before} -> {self.after}: {'fits' if self.fitting.fit.fits else 'no fit'}"
        found = "differs" if self.differs else "not compared" if self.unread_bytes else "the same"
        return f"{self.before} -> {self.after}: {found}"

    @property
    def removed(self) -> tuple[TensorEntry, ...]:
        """Entries whose key only the first side has."""
        return self.diff.removed

    @property
    def added(self) -> tuple[TensorEntry, ...]:
        """Entries whose key only the second side has."""
        return self.diff.added

    @property
    def renamed(self) -> tuple[Pair, ...]:
        """The same bytes, dtype and shape under another key."""
        return self.diff.renamed

    @property
    def reshaped(self) -> tuple[Pair, ...]:
        """The same key, another shape."""
        return self.diff.reshaped

    @property
    def retyped(self) -> tuple[Pair, ...]:
        """The same key, another dtype."""
        return self.diff.retyped

    @property
    def changed(self) -> tuple[Pair, ...]:
        """The same key, dtype and shape, other bytes."""
        return self.diff.changed

    @property
    def same(self) -> tuple[Pair, ...]:
        """The same key, dtype, shape and bytes."""
        return self.diff.same

    @property
    def within(self) -> tuple[PairValues, ...]:
        """The pairs of `values` that are within the tolerance; none without one."""
        if self.tolerance is None:
            return ()
        return tuple(pair for pair in self.values or () if pair.found.within(self.tolerance))

    @property
    def beyond(self) -> int:
        """The number of keys with other values that are not within the tolerance."""
        retyped = [a for a, b in self.diff.retyped if a.shape == b.shape]
        apart = len(self.diff.changed) + len(retyped) + len(self.inferred)
        return apart - len(self.within)

    @property
    def differs(self) -> bool:
        """Whether anything differs by more than the tolerance, as far as it was compared."""
        if self.files:
            return True
        close = {pair.before.key for pair in self.within}
        changed, retyped = (
            tuple((a, b) for a, b in pairs if a.key not in close)
            for pairs in (self.diff.changed, self.diff.retyped)
        )
        return replace(self.diff, changed=changed, retyped=retyped).differs


def diff(
    before: WeightsOrClass,
    after: WeightsOrClass,
    *,
    registry: InRegistry | None = None,
    values: bool | None = None,
    tolerance: float | None = None,
    unasked: float = READ_UNASKED_BYTES,
    arguments: Mapping[str, object] | None = None,
    told: Told = untold,
) -> RefDiff:
    """Compare two versions, files, state_dicts or modules, or one of them with a class.

    Args:
        before: A version, a file or a definition; or a state_dict, a module or a class.
        after: Likewise. If one side is a class, the answer is whether the other fits it.
        registry: Where versions are looked up.
        values: True reads the tensors of files and measures how far apart the values are; False
            reads nothing; None compares bytes, if there are few and none are elsewhere. Versions
            are compared by the digests in their manifests, at no cost.
        tolerance: The greatest difference of an element that counts as equal; implies `values`.
        unasked: How many bytes are few; those in memory never are many.
        arguments: The arguments of definitions.
        told: Called with the progress.

    Raises:
        RefError: A ref names nothing.
        FormatError: A file is not a readable checkpoint.
        IntegrityError: A tensor that changed is damaged in the registry.
        PlanError: One side is a definition, and the other an optimizer's state alone.

    Example:
        >>> found = ckpt.diff("old.pt", Net)
        >>> bool(found), found.fitting.fit.fits
        (True, False)
        >>> print(ckpt.diff(net.state_dict(), net))
        before -> Net
          same      4 keys
          no difference
    """
    _expect_tolerance(tolerance)
    values = values if tolerance is None else True
    registry = Registry.of(registry)
    with open_ref(before, registry, arguments) as a, open_ref(after, registry, arguments) as b:
        if isinstance(a, OpenedDefinition) or isinstance(b, OpenedDefinition):
            from ckpt.ops.diff.with_definition import compared

            return RefDiff(a.name, b.name, *compared(a, b))
        a, b = _named_apart(a, b)
        if isinstance(a, OpenedMemory) or isinstance(b, OpenedMemory):
            unasked = inf
        if unasked < inf and any(isinstance(it, OpenedFile) and it.origin for it in (a, b)):
            unasked = 0
        found = _of_states(Sides(a, b), values, unasked, told)
        facts = tuple(differing_facts(a, b))
        return replace(found, tolerance=tolerance, facts=facts, files=differing_files(a, b))


def _named_apart(a: OpenedState, b: OpenedState) -> tuple[OpenedState, OpenedState]:
    """Both, and what has no name of its own by its side."""

    def named(side: OpenedState, name: str) -> OpenedState:
        is_bare = isinstance(side, OpenedMemory) and side.name == STATE_DICT
        return replace(side, name=name) if is_bare else side

    return named(a, "before"), named(b, "after")


def _of_states(sides: Sides, values: bool | None, unasked: float, told: Told) -> RefDiff:
    """The difference of the tensors of two state_dicts."""
    a, b = sides.before, sides.after
    keys, unread = _compare(sides, values, unasked, told)
    # A version's objects are read whole to be verified, so only if that is asked for.
    files = isinstance(a, OpenedFile) and isinstance(b, OpenedFile)
    readable = sides if values or (values is None and files and not unread) else None
    inferred = likely_renames(keys, readable)
    return RefDiff(
        a.name,
        b.name,
        keys,
        unread_bytes=unread,
        values=_measured(sides, keys, inferred, told) if values else None,
        inferred=inferred,
        code={side.name: code for side in (a, b) if (code := _code(side))},
    )


def _code(side: OpenedState) -> list[ForeignGlobal]:
    return [found for found in side.foreign if found.runs_code]


def _compare(sides: Sides, values: bool | None, unasked: float, told: Told) -> tuple[KeyDiff, int]:
    """The difference by key, and how many bytes were not read for it."""
    old, new = _worth_reading(sides.before.entries, sides.after.entries)
    cost = sum(entry.nbytes for side in (old, new) for entry in side.values())
    if values or (values is None and cost <= unasked):
        return _compare_bytes(sides, old, new, told), 0
    return _compare_keys(sides, sides.before.entries, sides.after.entries), cost


def _compare_bytes(
    sides: Sides, old: dict[str, TensorEntry], new: dict[str, TensorEntry], told: Told
) -> KeyDiff:
    """Compare bytes: directly under the same key in two files, otherwise by digest."""
    pairs = [(entry, new[key]) for key, entry in old.items() if key in new]
    equal = equal_bytes(sides, pairs, told=told)
    # Digests show which changed tensors were swapped; if much changed, that is unlikely.
    changed = sum(2 * old[key].nbytes for key, same in equal.items() if not same)
    settled = {key for key, same in equal.items() if same or changed > READ_UNASKED_BYTES}
    mine, theirs = (
        [entry for key, entry in side.items() if key not in settled] for side in (old, new)
    )
    return _compare_keys(
        sides, _hashed(sides.before, mine, told), _hashed(sides.after, theirs, told), equal
    )


def _compare_keys(
    sides: Sides,
    before: Sequence[TensorEntry],
    after: Sequence[TensorEntry],
    equal: Mapping[str, bool] | None = None,
) -> KeyDiff:
    ties = ties_of(sides.before), ties_of(sides.after)
    mine, theirs = (entries_without_tensors(side) for side in (sides.before, sides.after))
    return compare_entries([*before, *mine], [*after, *theirs], equal=equal, ties=ties)


def compared_entries(opened: OpenedState) -> list[TensorEntry]:
    """The entries of one side, as they are compared where no bytes are read."""
    return [*opened.entries, *entries_without_tensors(opened)]


def _measured(
    sides: Sides, keys: KeyDiff, inferred: Sequence[tuple[str, str]], told: Told
) -> tuple[PairValues, ...]:
    removed, added = ({entry.key: entry for entry in side} for side in (keys.removed, keys.added))
    renamed = [(removed[old], added[new]) for old, new in inferred]
    pairs = [
        (a, b)
        for a, b in (*keys.changed, *keys.retyped, *renamed)
        if a.dtype != NOT_A_TENSOR and a.shape == b.shape and comparable(a.dtype, b.dtype)
    ]
    found = measure(sides, pairs, told=told)
    measured = (PairValues(a, b, values) for (a, b), values in found)
    return tuple(sorted(measured, key=_change, reverse=True))


def _change(pair: PairValues) -> tuple[bool, float, float]:
    found = pair.found
    relative = inf if found.relative_l2 is None else found.relative_l2
    return found.incomparable > 0, relative, found.max_abs or 0.0


def _expect_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < inf:
        raise UsageError(f"a tolerance of {tolerance}: expected a finite number, 0 or greater")


def _worth_reading(
    before: Sequence[TensorEntry], after: Sequence[TensorEntry]
) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """The entries without a digest that a tensor on the other side may equal.

    That is a tensor of the same dtype and shape under the same key or, if the key is gone, under
    a new one.
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
    """The entries of a side, the wanted ones with their digests."""
    if not isinstance(side, OpenedFile):
        return list(side.entries)
    digests = hashed(side, wanted, told=told)
    return [
        replace(entry, digest=digests[entry.key]) if entry.key in digests else entry
        for entry in side.entries
    ]
