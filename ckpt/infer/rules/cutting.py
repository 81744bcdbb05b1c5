r"""Cut old keys into pieces that stay and pieces that are replaced, with few replacements overall.

A replacement exchanges whole words; its numbers are groups if that serves more keys:
``block(\d+)`` to ``block.{1-1}``. Replacements that many keys share are preferred, in several
rounds.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, islice, product

from ckpt.infer.rules.folding import MARK, Folded, Made, varies

# By round, the weight of the pairs that could use a replacement, beside those that do.
_HOPES = (1.0, 0.5, 0.2, 0.1, 0.0, 0.0)
_MOST_WORDS = 4  # of one replacement on either side
_MOST_FORMS = 16  # of one replacement
_SLACK = 1  # words that an alignment may exchange more than the best one does
_WHOLE_COST = 2.0  # of a replacement that one pair uses
_NUMBER_FIRST = 2.0  # more, if the number at its start is parted from its word
_UNUSED = 0.2  # assumed number of pairs of a replacement that no pair uses
_FORMULA = re.compile(r"\{[^}]*\}|\\\d")
_FINE = re.compile(r"(?:[^\W_]|\0)+|[^\w\0]|_")

Grid = list[list[int]]


@dataclass(frozen=True, slots=True)
class Rewrite:
    r"""One replacement.

    Attributes:
        old: Regular expression, ``(\d+)`` for a number that is a group.
        new: In the syntax of rules, ``\1`` and ``{1+1}`` for groups.
    """

    old: str
    new: str

    @property
    def begins_with_number(self) -> bool:
        """Whether the number at its start is parted from its word."""
        return re.match(r"\(?\\?\d", self.old) is not None


@dataclass(frozen=True, slots=True)
class Piece:
    """A replacement in a pair, from one word of the old key to before another."""

    rewrite: Rewrite
    first: int
    end: int


Step = tuple[int, int, int, int, int]  # old words from, to; new from, to; a rewrite or `_KEPT`
_KEPT = -1


def words(key: str, *, fine: bool) -> list[str]:
    """The dotted parts of a key; if `fine`, runs of letters and digits, and what separates them."""
    return _FINE.findall(key) if fine else key.split(".")


class Cutter:
    """Cuts some folded pairs.

    Args:
        groups: The pairs.
        fine: Where keys may be cut, as in `words`.
    """

    def __init__(self, groups: Sequence[Folded], *, fine: bool) -> None:
        numbers: dict[Rewrite, int] = {}
        self._ways = [
            [
                (*span, numbers.setdefault(rewrite, len(numbers)) if rewrite else _KEPT)
                for span, rewrite in _Ways(group, fine=fine).steps()
            ]
            for group in groups
        ]
        self._rewrites = [*numbers]
        self._prices = [_price(rewrite) for rewrite in numbers]
        self._banned: set[int] = set()

    def ban(self, rewrites: Iterable[Rewrite]) -> bool:
        """Use some replacements no more, nor others by the same numbers, except for a whole key.

        Returns:
            Whether any was not banned before.
        """
        known = {(it.old, _FORMULA.sub(MARK, it.new)) for it in rewrites}
        same = {n for n, it in enumerate(self._rewrites)
                if (it.old, _FORMULA.sub(MARK, it.new)) in known}  # fmt: skip
        grown = not same <= self._banned
        self._banned |= same
        return grown

    def cut(self) -> list[list[Piece]]:
        """The pieces of every pair."""
        ways = [
            [step for step in steps if step[4] not in self._banned or step is steps[-1]]
            for steps in self._ways
        ]
        possible = Counter(chain.from_iterable({step[4] for step in steps} for steps in ways))
        counts: Mapping[int, float] = possible
        for hope in _HOPES:
            costs = self._costs(counts)
            cuts = [_cheapest(steps, costs) for steps in ways]
            used = Counter(step[4] for cut in cuts for step in cut)
            counts = {it: used[it] + hope * count or _UNUSED for it, count in possible.items()}
        cuts = self._with_fewer(ways, cuts)
        return [[Piece(self._rewrites[it], i, a) for i, a, _, _, it in cut] for cut in cuts]

    def _costs(self, counts: Mapping[int, float]) -> dict[int, float]:
        """The cost of one use: that of the rule over all uses."""
        return {it: self._prices[it] / n for it, n in counts.items() if it != _KEPT} | {_KEPT: 0.0}

    def _with_fewer(
        self, ways: Sequence[Sequence[Step]], cuts: list[list[Step]]
    ) -> list[list[Step]]:
        """The cuts without replacements that others can do, the least used dropped first."""
        used = Counter(step[4] for cut in cuts for step in cut)
        costs = self._costs(used)
        few = [[step for step in steps if step[4] in costs] for steps in ways]
        for rewrite in sorted(used, key=lambda it: (used[it], -len(self._rewrites[it].old))):
            touched = [n for n, cut in enumerate(cuts) if any(s[4] == rewrite for s in cut)]
            fewer = {n: [step for step in few[n] if step[4] != rewrite] for n in touched}
            try:
                found = {n: _cheapest(fewer[n], costs, ways[n][-1]) for n in touched}
            except KeyError:  # the other replacements do not reach the end of a key
                continue
            few = [fewer.get(n, steps) for n, steps in enumerate(few)]
            cuts = [found.get(n, cut) for n, cut in enumerate(cuts)]
        return cuts


class _Ways:
    """The steps from some words of the old key of a pair to some words of its new key."""

    def __init__(self, group: Folded, *, fine: bool) -> None:
        self._group = group
        self._joint = "" if fine else "."
        self._most = 2 * _MOST_WORDS - 1 if fine else _MOST_WORDS
        self._olds, self._news = (words(key, fine=fine) for key in (group.old, group.new))
        # By word, how many numbers are before it.
        self._before, self._made = (
            [*accumulate((word.count(MARK) for word in side), initial=0)]
            for side in (self._olds, self._news)
        )
        self._same = {
            (i, j)
            for i in range(len(self._olds))
            for j in range(len(self._news))
            if self._stays(i, j)
        }

    def steps(self) -> Iterator[tuple[tuple[int, int, int, int], Rewrite | None]]:
        """The steps in order; the last one replaces the whole key."""
        group = self._group
        if group.old == group.new and group.olds == group.news:
            cells = [(n, n) for n in range(len(self._olds) + 1)]
        else:
            cells = self._cells()
        known = {*cells}
        for i, j in cells:
            if (i + 1, j + 1) in known and (i, j) in self._same:
                yield (i, i + 1, j, j + 1), None
            for a, b in cells:
                if i < a <= i + self._most and j < b <= j + self._most and (
                    not self._is_padded(i, a, j, b)
                ):  # fmt: skip
                    for form in self._forms(i, a, j, b):
                        yield (i, a, j, b), form
        whole = (0, len(self._olds), 0, len(self._news))
        yield whole, self._forms(*whole)[0]

    def _stays(self, i: int, j: int) -> bool:
        if self._olds[i] != self._news[j]:
            return False
        old, new = self._before[i], self._made[j]
        size = self._before[i + 1] - old
        return self._group.olds[old : old + size] == self._group.news[new : new + size]

    def _is_padded(self, i: int, a: int, j: int, b: int) -> bool:
        """Whether a shorter replacement does the same."""
        if a - i == 1 or b - j == 1:
            return a - i == b - j and (i, j) in self._same
        return self._surely_stays(i, j) or self._surely_stays(a - 1, b - 1)

    def _surely_stays(self, i: int, j: int) -> bool:
        """Whether a word stays, and not as a number that happens to be the same."""
        lone = self._olds[i] == MARK and not self._group.varying[self._before[i]]
        return not lone and (i, j) in self._same

    def _cells(self) -> list[tuple[int, int]]:
        """The places at which both keys may be cut: those near the best alignments."""
        rows, columns = len(self._olds), len(self._news)
        ahead = _distances(rows, columns, self._same)
        back = _distances(rows, columns, {(rows - 1 - i, columns - 1 - j) for i, j in self._same})
        most = ahead[rows][columns] + _SLACK
        return [
            (i, j)
            for i in range(rows + 1)
            for j in range(columns + 1)
            if ahead[i][j] + back[rows - i][columns - j] <= most
        ]

    def _forms(self, i: int, a: int, j: int, b: int) -> list[Rewrite]:
        """The replacement with literal numbers, and with some of them as groups."""
        group, places = self._group, range(self._before[i], self._before[a])
        choices: list[list[Made | None]] = []
        for new in range(self._made[j], self._made[b]):
            makers: list[Made | None] = [it for it in group.makers[new] if {*it[1]} <= {*places}]
            choices.append(makers if varies(group.news[new]) else [None, *makers])
        before, after = self._joint.join(self._olds[i:a]), self._joint.join(self._news[j:b])
        some = islice(product(*choices), _MOST_FORMS)
        return [form(group, before, after, places, self._made[j], made) for made in some]


def form(
    group: Folded, old: str, new: str, places: range, first: int, made: Sequence[Made | None]
) -> Rewrite:
    """The replacement of some text of a folded pair.

    Args:
        group: The pair.
        old: The old text, with marks.
        new: The new text, with marks.
        places: Of the numbers in the old text.
        first: The place of the first number in the new text.
        made: By number in the new text, what makes it; None if it is written.
    """
    used = sorted({place for maker in made if maker for place in maker[1]})
    group_of = {place: n for n, place in enumerate(used, start=1)}
    olds = []
    for place in places:
        literal = r"\d+" if group.varying[place] else group.olds[place][0]
        olds.append(r"(\d+)" if place in group_of else literal)
    texts = new.split(MARK)
    news = []
    for n, maker in enumerate(made):
        if maker is None:
            news.append(group.news[first + n][0])
        else:
            groups = [group_of[place] for place in maker[1]]
            news.append(maker[0].text(*groups, digit_follows=texts[n + 1][:1].isdecimal()))
    return Rewrite(_filled([*map(escaped, old.split(MARK))], olds), _filled(texts, news))


def _filled(texts: Sequence[str], numbers: Sequence[str]) -> str:
    return texts[0] + "".join([n + text for n, text in zip(numbers, texts[1:], strict=True)])


def _distances(rows: int, columns: int, same: Set[tuple[int, int]]) -> Grid:
    """By place in both keys, how many words are exchanged, added or left out before it."""
    grid = [[*range(columns + 1)]]
    for i in range(rows):
        row = [i + 1]
        for j in range(columns):
            through = grid[i][j] if (i, j) in same else grid[i][j] + 1
            row.append(min(through, grid[i][j + 1] + 1, row[j] + 1))
        grid.append(row)
    return grid


def _price(rewrite: Rewrite) -> float:
    """That of a rule, a little less if it is short; a number belongs to the word before it."""
    price = _WHOLE_COST + 0.02 * (len(rewrite.old) + len(rewrite.new))
    return price + _NUMBER_FIRST if rewrite.begins_with_number else price


def _cheapest(
    steps: Sequence[Step], costs: Mapping[int, float], whole: Step | None = None
) -> list[Step]:
    """The replacements on the cheapest way from the start of both keys to their ends.

    Args:
        steps: In order.
        costs: By rewrite.
        whole: The step that replaces the whole key; None for the last one.

    Raises:
        KeyError: No steps reach the end.
    """
    best: dict[tuple[int, int], tuple[float, Step | None]] = {(0, 0): (0.0, None)}
    start, before = (0, 0), best.get((0, 0))
    for step in steps:
        i, a, j, b, rewrite = step
        if (i, j) != start:  # most steps start where the one before does
            start = i, j
            before = best.get(start)
        if before is None:
            continue
        cost = before[0] + costs[rewrite]
        known = best.get((a, b))
        if known is None or cost < known[0]:
            best[a, b] = cost, step
    _, end, _, other, _ = whole or steps[-1]
    found: list[Step] = []
    at = end, other
    while (step_to := best[at][1]) is not None:
        if step_to[4] != _KEPT:
            found.append(step_to)
        at = step_to[0], step_to[2]
    return found[::-1]


def with_any_numbers(parts: Sequence[str]) -> str:
    r"""Dotted parts as a regular expression, ``\d+`` for every number."""
    return r"\.".join(re.sub(r"\d+", r"\\d+", escaped(part)) for part in parts)


@lru_cache(maxsize=10_000)
def escaped(text: str) -> str:
    """The text as a regular expression, with as few backslashes as it needs."""
    return re.sub(r"[.^$*+?{}\[\]\\|()]", lambda found: rf"\{found[0]}", text)
