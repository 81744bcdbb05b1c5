"""The difference of two state_dicts, and whether one fits a definition.

Values are compared by digest, or by a caller that compared the bytes; entries with neither count
as not compared.
Law: every entry of both sides is in exactly one group of `KeyDiff`, a re-typed and reshaped
one in both of these.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt.tensors import NOT_A_TENSOR, StateDict, TensorEntry

if TYPE_CHECKING:
    from ckpt.loading import Answer  # which imports what finds definitions

Pair = tuple[TensorEntry, TensorEntry]


@dataclass(frozen=True, slots=True)
class KeyDiff:
    """The difference from the first side to the second.

    Attributes:
        removed: Entries whose key only the first side has.
        added: Entries whose key only the second side has.
        renamed: The same bytes, dtype and shape under another key.
        reshaped: The same key, another shape.
        retyped: The same key, another dtype.
        changed: The same key, dtype and shape, other bytes.
        same: Keys with the same dtype, shape and bytes.
        unread: Keys with the same dtype and shape whose bytes were not compared.
        reordered: The fewest keys of both sides whose move explains the change of order.
        tied: (key, other): they share their bytes on the second side alone.
        untied: (key, other): they share their bytes on the first side alone.
    """

    removed: tuple[TensorEntry, ...]
    added: tuple[TensorEntry, ...]
    renamed: tuple[Pair, ...]
    reshaped: tuple[Pair, ...]
    retyped: tuple[Pair, ...]
    changed: tuple[Pair, ...]
    same: tuple[Pair, ...]
    unread: tuple[Pair, ...]
    reordered: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    untied: tuple[tuple[str, str], ...] = ()

    @property
    def swapped(self) -> list[tuple[str, str]]:
        """Pairs of keys of `changed` that exchanged their bytes."""
        waiting: dict[object, deque[str]] = {}
        found = []
        for a, b in self.changed:
            if a.digest and b.digest:
                kind = (a.dtype, a.shape)
                if others := waiting.get((b.digest, a.digest, kind)):
                    found.append((others.popleft(), a.key))
                else:
                    waiting.setdefault((a.digest, b.digest, kind), deque()).append(a.key)
        return found

    @property
    def keys_before(self) -> Iterator[str]:
        """All keys of the first side."""
        yield from (entry.key for entry in self.removed)
        pairs = (self.renamed, self.reshaped, self.retyped, self.changed, self.same, self.unread)
        yield from {a.key: None for group in pairs for a, _ in group}

    @property
    def differs(self) -> bool:
        """Whether any tensor differs, as far as it was compared.

        Order and ties do not count: they say how a file stores its tensors.
        """
        return bool(
            self.removed
            or self.added
            or self.renamed
            or self.reshaped
            or self.retyped
            or self.changed
        )


def compare_entries(
    before: Iterable[TensorEntry],
    after: Iterable[TensorEntry],
    *,
    equal: Mapping[str, bool] | None = None,
    ties: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> KeyDiff:
    """Compare two lists of entries with unique keys; groups keep the order of their side.

    Args:
        before: Entries of the first side.
        after: Entries of the second side.
        equal: By key, whether the bytes are the same, if they were compared; not looked at if
            dtypes or shapes differ.
        ties: On each side, the keys that share the bytes of another key, with that key.
    """
    old = {entry.key: entry for entry in before}
    new = {entry.key: entry for entry in after}
    common = [(old[key], new[key]) for key in old if key in new]
    removed = [entry for key, entry in old.items() if key not in new]
    added = [entry for key, entry in new.items() if key not in old]
    mine, theirs = ([entry for entry in side if entry.digest] for side in (removed, added))
    pairs = pair_alike(mine, theirs, lambda entry: (entry.digest, entry.dtype, entry.shape))
    renamed = [(a, b) for a, b in pairs if b is not None]
    gone = {a.key for a, _ in renamed}
    come = {b.key for _, b in renamed}
    alike = [(a, b) for a, b in common if a.shape == b.shape and a.dtype == b.dtype]
    verdicts = [(_equal(a, b, equal or {}), (a, b)) for a, b in alike]
    return KeyDiff(
        removed=tuple(entry for entry in removed if entry.key not in gone),
        added=tuple(entry for entry in added if entry.key not in come),
        renamed=tuple(renamed),
        reshaped=tuple((a, b) for a, b in common if a.shape != b.shape),
        retyped=tuple((a, b) for a, b in common if a.dtype != b.dtype),
        changed=tuple(pair for same, pair in verdicts if same is False),
        same=tuple(pair for same, pair in verdicts if same),
        unread=tuple(pair for same, pair in verdicts if same is None),
        reordered=tuple(_out_of_order([a.key for a, _ in common], [*new])),
        tied=tuple(_new_ties(*ties, keys=new.keys() & old.keys())),
        untied=tuple(_new_ties(*reversed(ties), keys=new.keys() & old.keys())),
    )


def _out_of_order(mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The fewest keys of `mine` without which the rest has the order of `theirs`.

    These are all but a longest increasing subsequence of their places (patience sorting).
    """
    place = {key: number for number, key in enumerate(theirs)}
    numbers = [place[key] for key in mine]
    tops: list[int] = []  # the least number that can end a sequence of each length
    ends: list[int] = []  # where in `mine` that is
    before: list[int | None] = []
    for at, number in enumerate(numbers):
        length = bisect_left(tops, number)
        tops[length : length + 1] = [number]
        ends[length : length + 1] = [at]
        before.append(ends[length - 1] if length else None)
    kept: set[int] = set()
    at_or_none = ends[-1] if ends else None
    while at_or_none is not None:
        kept.add(at_or_none)
        at_or_none = before[at_or_none]
    return [key for at, key in enumerate(mine) if at not in kept]


def _new_ties(
    before: Mapping[str, str], after: Mapping[str, str], *, keys: Set[str]
) -> Iterator[tuple[str, str]]:
    """Ties among `keys` that only `after` has."""
    for key, other in after.items():
        if {key, other} <= keys and before.get(key, key) != before.get(other, other):
            yield key, other


def _equal(before: TensorEntry, after: TensorEntry, equal: Mapping[str, bool]) -> bool | None:
    if before.digest and after.digest:
        return before.digest == after.digest
    return equal.get(before.key)


def pair_alike(
    ones: Sequence[TensorEntry],
    others: Sequence[TensorEntry],
    kind: Callable[[TensorEntry], object],
) -> list[tuple[TensorEntry, TensorEntry | None]]:
    """Every entry of `ones` with an entry of `others` of the same kind, None if none is left.

    Entries of equal last part (`weight`) are paired first, then by order. Among tensors of one
    kind the pairing is arbitrary.
    """
    partner: dict[str, TensorEntry] = {}
    taken: set[str] = set()
    for same_end in (True, False):

        def group(entry: TensorEntry, same_end: bool = same_end) -> object:
            return kind(entry), entry.key.rpartition(".")[2] if same_end else None

        waiting: defaultdict[object, deque[TensorEntry]] = defaultdict(deque)
        for other in others:
            if other.key not in taken:
                waiting[group(other)].append(other)
        for one in ones:
            if one.key not in partner and (queue := waiting[group(one)]):
                partner[one.key] = queue.popleft()
                taken.add(partner[one.key].key)
    return [(one, partner.get(one.key)) for one in ones]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a state_dict fits a definition, in the words of `load_state_dict`.

    Attributes:
        missing: Entries that the definition has and the state_dict lacks.
        unexpected: Entries that the definition does not have.
        reshaped: (state_dict's, definition's) entries of the same key and different shapes.
        agreeing: Number of keys with the same shape on both sides.
        handled: Keys that one side lacks or has in another shape, which torch accepts all the
            same: the class converts them while it loads.
        complaints: What else torch says against it, a line each.
        unasked: Why torch was not asked, so that keys and shapes alone decide; None if it was,
            or if there is no class to ask.
    """

    missing: tuple[TensorEntry, ...]
    unexpected: tuple[TensorEntry, ...]
    reshaped: tuple[Pair, ...]
    agreeing: int
    handled: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    unasked: str | None = None

    @property
    def fits(self) -> bool:
        """Whether `load_state_dict(strict=True)` would accept it."""
        return not (self.missing or self.unexpected or self.reshaped or self.complaints)


def fit(state: StateDict, wanted: StateDict, answer: "Answer | None" = None) -> Fit:
    """How a state_dict fits another one, as strict loading compares them.

    Dtypes may differ, since loading converts. Keys and shapes decide unless torch gave an
    `answer`: then that is the verdict, and they explain it.
    """
    diff = compare_entries(state.keys, wanted.keys)
    alike = len(diff.same) + len(diff.unread) + len(diff.changed)
    reshaped = {a.key for a, _ in diff.reshaped}
    retyped = sum(a.key not in reshaped for a, _ in diff.retyped)
    found = Fit(diff.added, diff.removed, diff.reshaped, alike + retyped)
    if answer is None:
        return found
    if answer.unasked is not None:
        return replace(found, unasked=answer.unasked)
    mine, theirs = ({entry.key: entry for entry in side.keys} for side in (state, wanted))
    pairs = [(key, mine.get(key), theirs.get(key)) for key in answer.reshaped]
    named = {*answer.missing, *answer.unexpected, *answer.reshaped}
    unequal = (*found.missing, *found.unexpected, *(a for a, _ in found.reshaped))
    return Fit(
        missing=tuple(theirs.get(key, _unknown(key)) for key in answer.missing),
        unexpected=tuple(mine.get(key, _unknown(key)) for key in answer.unexpected),
        reshaped=tuple((a, b) for _, a, b in pairs if a is not None and b is not None),
        agreeing=found.agreeing,
        handled=tuple(entry.key for entry in unequal if entry.key not in named),
        complaints=(
            *answer.complaints,
            *(f"{key} has another shape" for key, a, b in pairs if a is None or b is None),
        ),
    )


def _unknown(key: str) -> TensorEntry:
    return TensorEntry(key, NOT_A_TENSOR, ())
