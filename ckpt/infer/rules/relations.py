r"""How the numbers of new keys follow from those of old keys.

A number is a copy, shifted, reversed, a quotient or a remainder (``12`` as ``3.2``), or made of two
numbers (``3.2`` as ``12``). Sequences are the numbers of some keys, all in one place of the key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Numbers = Sequence[str]

_MOST_DIVISOR = 12  # of a quotient or a remainder
_LEAST = 3  # different numbers that show a relation other than a shift


@dataclass(frozen=True, slots=True)
class Relation:
    """A number of a new key: ``(scale * x + y + shift) // by % modulo + plus``.

    Attributes:
        scale: 1, -1 for a reversed order, or more if there is a `y`.
        two: Whether there is a `y`.
        copies: Whether the text of `x` is copied, with its leading zeros.
        modulo: 0 if there is none.
    """

    scale: int = 1
    shift: int = 0
    by: int = 1
    modulo: int = 0
    plus: int = 0
    two: bool = False
    copies: bool = False

    def of(self, x: str, y: str = "0") -> str:
        """The new number."""
        if self.copies:
            return x
        value = (self.scale * int(x) + int(y) + self.shift) // self.by
        return str((value % self.modulo if self.modulo else value) + self.plus)

    def holds(self, news: Numbers, xs: Numbers, ys: Numbers | None = None) -> bool:
        """Whether it makes all the new numbers."""
        if self.copies:
            return news == xs
        return all(map(str.__eq__, news, map(self.of, xs, ys or ["0"] * len(xs))))

    def text(self, x: int, y: int = 0, *, digit_follows: bool = False) -> str:
        r"""It in the syntax of rules, e.g. ``{(\1-1)//3}`` for group 1."""
        if self.copies:
            return f"{{{x}}}" if digit_follows else rf"\{x}"
        shift = f"{self.shift:+d}" if self.shift else ""
        if self.by == 1 and not self.modulo and not self.two:
            return f"{{{'-' if self.scale < 0 else ''}{x}{self.shift:+d}}}"
        inner = rf"\{x}" + (f"*{self.scale}" if self.scale > 1 else "")
        inner += (rf"+\{y}" if self.two else "") + shift
        if self.two:
            return f"{{{inner}}}"
        inner = f"({inner})" if shift else inner
        plus = f"{self.plus:+d}" if self.plus else ""
        return (
            f"{{{inner}//{self.by}{plus}}}" if self.by > 1 else f"{{{inner}%{self.modulo}{plus}}}"
        )


COPY = Relation(copies=True)


def relations(news: Numbers, xs: Numbers) -> Iterator[Relation]:
    """The relations that make the new numbers of the old ones, which vary; the plainest first."""
    if news == xs:
        yield COPY
        return
    if any(text != str(int(text)) for text in news):  # leading zeros
        return
    pairs = sorted({(int(x), int(new)) for x, new in zip(xs, news, strict=True)})
    shifts = {new - x for x, new in pairs}
    if len(shifts) == 1:
        yield Relation(shift=shifts.pop())
        return
    if len(pairs) < _LEAST or len({x for x, _ in pairs}) < len(pairs):
        return
    sums = {new + x for x, new in pairs}
    if len(sums) == 1:
        yield Relation(scale=-1, shift=sums.pop())
    yield from _quotients(pairs)
    yield from _remainders(pairs)


def _quotients(pairs: Sequence[tuple[int, int]]) -> Iterator[Relation]:
    for by in range(2, _MOST_DIVISOR + 1):
        least = max(new * by - x for x, new in pairs)
        most = min(new * by + by - 1 - x for x, new in pairs)
        if least <= most:
            yield from (Relation(shift=n, by=by) for n in sorted(range(least, most + 1), key=abs))
            return


def _remainders(pairs: Sequence[tuple[int, int]]) -> Iterator[Relation]:
    plus = min(1, min(new for _, new in pairs))
    span = pairs[-1][0] - pairs[0][0]
    top = max(new for _, new in pairs) - plus
    for modulo in range(top + 1, min(_MOST_DIVISOR, span) + 1):
        if modulo < 2:
            continue
        shift = (pairs[0][1] - plus - pairs[0][0]) % modulo
        shift -= modulo if shift > modulo // 2 else 0
        if all((x + shift) % modulo + plus == new for x, new in pairs):
            yield Relation(shift=shift, modulo=modulo, plus=plus)


def relation_of_two(news: Numbers, xs: Numbers, ys: Numbers) -> Relation | None:
    """The relation ``scale * x + y + shift``, if there is one."""
    rows = [*zip(map(int, xs), map(int, ys), map(int, news), strict=True)]
    x, y, new = rows[0]
    other = next((row for row in rows if row[0] != x), None)
    if other is None:
        return None
    scale, rest = divmod(other[2] - other[1] - new + y, other[0] - x)
    made = Relation(scale=scale, shift=new - scale * x - y, two=True)
    return made if scale > 1 and not rest and made.holds(news, xs, ys) else None
