"""The numbers that the versions of two sides get in a merge.

Values only. Laws: every version of a side has one number in the result; a published number keeps
its version; of two unpublished versions, the one created first keeps its number; swapping the sides
changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt.registry.index import Index, Model
from ckpt.registry.version import Version

_UNKNOWN = "~"  # after every time


@dataclass(frozen=True, slots=True)
class Numbers:
    """The result.

    Attributes:
        ours: The number in the result of each version of ours, removed ones included.
        theirs: Likewise of theirs.
        twice_published: Numbers that were published with the version of ours and that of theirs.
    """

    ours: Mapping[int, int]
    theirs: Mapping[int, int]
    twice_published: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The same bytes in ours and in theirs, or in one of them; None where they are missing."""

    numbers: tuple[int | None, int | None]
    content: str
    created: str

    @property
    def order(self) -> tuple[str, int, str]:
        """By creation."""
        return self.created, min(number for number in self.numbers if number), self.content


@dataclass(frozen=True, slots=True)
class _Claim:
    """A pair's claim to a number; `rank` is below that of unpublished ones if it is published."""

    pair: _Pair
    number: int
    rank: int
    is_published: bool


def numbered(
    base: Model,
    ours: Model,
    theirs: Model,
    published: Sequence[Sequence[Model]],
    *,
    take_theirs: bool,
) -> Numbers:
    """Number the versions of both sides.

    Args:
        base: The common ancestor.
        ours: The one side.
        theirs: The other side.
        published: Groups of published models; the numbers of an earlier group hold.
        take_theirs: Whether theirs, not ours, keeps a number that was published with both.
    """
    pairs = tuple(_pairs(base, ours, theirs))
    claims = list(_claims(pairs, (base, ours, theirs), published))
    decisive = 1 if take_theirs else 0
    claims.sort(
        key=lambda claim: (
            claim.rank,
            claim.is_published and claim.pair.numbers[decisive] != claim.number,
            claim.pair.order,
        )
    )
    places: dict[_Pair, int] = {}
    winners: dict[int, _Claim] = {}
    twice = []
    for claim in claims:
        if (winner := winners.get(claim.number)) is not None:
            if claim.is_published and winner.rank == claim.rank:
                twice.append(claim.number)
        elif claim.pair not in places:
            places[claim.pair], winners[claim.number] = claim.number, claim
    following = max(base.next_number, ours.next_number, theirs.next_number)
    moved = sorted((pair for pair in pairs if pair not in places), key=lambda pair: pair.order)
    places |= {pair: number for number, pair in enumerate(moved, following)}
    mine, others = (
        {number: place for pair, place in places.items() if (number := pair.numbers[side])}
        for side in (0, 1)
    )
    return Numbers(mine, others, tuple(sorted(twice)))


def every_version(model: Model) -> dict[int, Version]:
    """All versions by number, removed ones last."""
    return {**dict(sorted(model.versions.items())), **dict(sorted(model.removed.items()))}


def placed(version: Version, number: int) -> Version:
    """A version under a number; its line keeps the one before."""
    renumbered = version.renumbered if version.number == number else version.label
    return replace(version, number=number, renumbered=renumbered)


def readded(index: Index, version: Version, *, at: str) -> tuple[Index, Version]:
    """The index with a version that it lost, under its number if that is free, else the next.

    The version is restored `at` a time.
    """
    version = replace(version, removed="", restored=at)
    model = index.models.get(version.model) or Model(name=version.model)
    if version.number >= model.next_number or version.number in every_version(model):
        version = placed(version, model.next_number)
    versions = dict(sorted({**model.versions, version.number: version}.items()))
    number = max(model.next_number, version.number + 1)
    return index.with_model(replace(model, versions=versions, next_number=number)), version


def _pairs(base: Model, ours: Model, theirs: Model) -> Iterator[_Pair]:
    """The same bytes are the same version: under the same number, else under another one.

    A version that the `gc` of one side deleted is not a new version of the other.
    """
    old, free, left = map(every_version, (base, ours, theirs))
    agreed = {n for n in free.keys() & left.keys() if free[n].content == left[n].content}
    for number in agreed:
        yield _pair((number, number), free.pop(number), left.pop(number))
    for number, version in left.items():
        twins = (
            twin
            for twin, line in free.items()
            if line.content == version.content and not _forgot(theirs, twin, old)
        )
        twin = None if _forgot(ours, number, old) else next(twins, None)
        if twin is None:
            yield _pair((None, number), version)
        else:
            yield _pair((twin, number), free.pop(twin), version)
    for number, version in free.items():
        yield _pair((number, None), version)


def _pair(numbers: tuple[int | None, int | None], *lines: Version) -> _Pair:
    created = min(line.created or _UNKNOWN for line in lines)
    return _Pair(numbers, lines[0].content, created)


def _claims(
    pairs: Sequence[_Pair],
    models: tuple[Model, Model, Model],
    published: Sequence[Sequence[Model]],
) -> Iterator[_Claim]:
    """Published numbers come first, then numbers that one side changed, then the others."""
    base, *sides = models
    groups = [[every_version(model) for model in group] for group in published]
    old, known = every_version(base), [every_version(side) for side in sides]
    for pair in pairs:
        before = next((n for n in pair.numbers if n and _has(old, n, pair)), None)
        for number in set(filter(None, pair.numbers)):
            ranks = [
                rank
                for rank, group in enumerate(groups)
                if any(_has(m, number, pair) for m in group)
            ]
            is_used_up = any(
                number not in lines and number < side.next_number
                for side, lines in zip(sides, known, strict=True)
            )
            if ranks:
                yield _Claim(pair, number, ranks[0], is_published=True)
            elif number == before or not is_used_up:
                is_moved = before is not None and number != before
                rank = len(groups) + (0 if is_moved else 1)
                yield _Claim(pair, number, rank, is_published=False)


def _has(lines: Mapping[int, Version], number: int, pair: _Pair) -> bool:
    return number in lines and lines[number].content == pair.content


def _forgot(model: Model, number: int, old: Mapping[int, Version]) -> bool:
    """Whether `gc` has deleted a version of base from a model."""
    known = number in model.versions or number in model.removed
    return number in old and not known and number < model.next_number
