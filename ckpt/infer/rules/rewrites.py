r"""Cut old keys into pieces that stay and pieces that are replaced, with few replacements overall.

A replacement exchanges whole dotted parts; its numbers are groups if that serves more keys:
``block(\d+)`` to ``block.{1-1}``. Replacements that many keys share are preferred, in several
rounds.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

HOPES = ((0.5, 0.2, 0.1, 0.0, 0.0), (0.0, 0.0, 0.0))  # for `Cutter.cut`; try both
_MOST_OLD, _MOST_NEW = 4, 4  # dotted parts of a replacement
_MOST_NUMBERS = 2  # of one replacement that are tried in all combinations of group and literal
_NUMBER = re.compile(r"\d+")
_WHOLE_COST = 2.0  # of a replacement that one key uses
_UNUSED = 0.2  # assumed number of keys of a replacement that no key uses


@dataclass(frozen=True, slots=True)
class Rewrite:
    r"""One replacement.

    Attributes:
        old: Regular expression, ``(\d+)`` for a number that is a group.
        new: In the syntax of rules, ``\1`` and ``{1+1}`` for groups.
    """

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A replacement in one key, and the part of the key that it replaces."""

    rewrite: Rewrite
    start: int
    end: int


Forms = dict[tuple[str, str], list[Rewrite]]


class Cutter:
    """Cuts some pairs of an old and a new key.

    Args:
        pairs: Old key and new key.
        forms: Cache of the replacements by the parts that they exchange; added to.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], forms: Forms) -> None:
        self._pairs = pairs
        self._steps = [_steps(old, new, forms) for old, new in pairs]

    def cut(self, hopes: Sequence[float], banned: set[Rewrite]) -> list[list[Piece]]:
        """The pieces of every pair.

        Args:
            hopes: By round, the weight of the keys that could use a replacement, beside those
                that do.
            banned: Replacements not to use.
        """
        steps = [
            [step for step in ways if step[4] not in banned or step is ways[-1]]
            for ways in self._steps
        ]
        possible = Counter(
            rewrite
            for ways in steps
            for rewrite in {step[4] for step in ways if step[4] is not None}
        )
        counts: Mapping[Rewrite, float] = possible
        for hope in hopes:
            costs = {rewrite: _cost(rewrite, count) for rewrite, count in counts.items()}
            cuts = [
                _cheapest(old, new, ways, costs)
                for (old, new), ways in zip(self._pairs, steps, strict=True)
            ]
            used = Counter(piece.rewrite for pieces in cuts for piece in pieces)
            counts = {
                rewrite: used[rewrite] + hope * count or _UNUSED
                for rewrite, count in possible.items()
            }
        return _with_fewer(self._pairs, steps, cuts)


def _with_fewer(
    pairs: Sequence[tuple[str, str]], steps: Sequence[Sequence["_Step"]], cuts: list[list[Piece]]
) -> list[list[Piece]]:
    """The cuts without replacements that others can do, the least used dropped first."""
    used = Counter(piece.rewrite for pieces in cuts for piece in pieces)
    costs = {rewrite: _cost(rewrite, count) for rewrite, count in used.items()}
    few = [[step for step in ways if step[4] is None or step[4] in used] for ways in steps]
    for rewrite in sorted(used, key=lambda rewrite: (used[rewrite], -len(rewrite.old))):
        fewer = [[step for step in ways if step[4] != rewrite] for ways in few]
        touched = [n for n, pieces in enumerate(cuts) if any(p.rewrite == rewrite for p in pieces)]
        found = {}
        for place in touched:
            try:
                found[place] = _cheapest(*pairs[place], fewer[place], costs)
            except KeyError:  # the other replacements do not reach the end of this key
                break
        else:
            few = fewer
            cuts = [found.get(place, pieces) for place, pieces in enumerate(cuts)]
    return cuts


def _cost(rewrite: Rewrite, count: float) -> float:
    """The cost of one use: that of the rule, a little less if it is short, over all uses."""
    return (_WHOLE_COST + 0.02 * (len(rewrite.old) + len(rewrite.new))) / count


_Step = tuple[int, int, int, int, Rewrite | None]  # old parts from, to; new from, to; None: kept


def _steps(old: str, new: str, forms: Forms) -> list[_Step]:
    """All steps from some parts of the old key to some parts of the new key."""
    olds, news = old.split("."), new.split(".")
    before, behind = _kept_ends(olds, news)
    found: list[_Step] = [(n, n + 1, n, n + 1, None) for n in range(before)]
    found += (
        (len(olds) - n, len(olds) - n + 1, len(news) - n, len(news) - n + 1, None)
        for n in range(behind, 0, -1)
    )
    end_old, end_new = len(olds) - behind, len(news) - behind
    for i, j in product(range(before, end_old), range(before, end_new)):
        if olds[i] == news[j]:
            found.append((i, i + 1, j, j + 1, None))
        for a in range(i + 1, min(i + _MOST_OLD, end_old) + 1):
            for b in range(j + 1, min(j + _MOST_NEW, end_new) + 1):
                if not _is_padded(olds[i:a], news[j:b]):
                    text = ".".join(olds[i:a]), ".".join(news[j:b])
                    if text not in forms:
                        forms[text] = list(_forms(*text))
                    found += ((i, a, j, b, form) for form in forms[text])
    found.sort(key=lambda step: step[:4])
    whole = Rewrite(escaped(old), new)  # always possible, seldom the best
    return [*found, (0, len(olds), 0, len(news), whole)]


def _kept_ends(olds: Sequence[str], news: Sequence[str]) -> tuple[int, int]:
    """How many parts at the start and at the end surely stay: all equal ones but one."""
    least = min(len(olds), len(news))
    before = 0
    while before < least and olds[before] == news[before]:
        before += 1
    behind = 0
    while behind < least - before and olds[-1 - behind] == news[-1 - behind]:
        behind += 1
    return max(0, before - 1), max(0, behind - 1)


def _is_padded(olds: Sequence[str], news: Sequence[str]) -> bool:
    """Whether a shorter replacement does the same."""
    if len(olds) == 1 or len(news) == 1:
        return olds == news
    return olds[0] == news[0] or olds[-1] == news[-1]


def _forms(old: str, new: str) -> Iterator[Rewrite]:
    """The replacement with literal numbers, and with some of them as groups."""
    numbers = [*_NUMBER.finditer(old)]
    choices = product((False, True), repeat=len(numbers)) if len(numbers) <= _MOST_NUMBERS else (
        (False,) * len(numbers), (True,) * len(numbers),
    )  # fmt: skip
    for choice in choices:
        groups = [
            int(found[0]) for found, is_group in zip(numbers, choice, strict=True) if is_group
        ]
        if any(choice) and any(found[0] != str(int(found[0])) for found in numbers):
            continue  # leading zeros
        made = dict.fromkeys((_in_groups(new, groups, shifted=False),
                              _in_groups(new, groups, shifted=True)))  # fmt: skip
        for text in made:
            if text is not None:
                yield Rewrite(_pattern(old, choice), text)


def _pattern(old: str, groups: Sequence[bool]) -> str:
    is_group = iter(groups)
    pieces = re.split(r"(\d+)", old)
    return "".join(
        escaped(piece) if place % 2 == 0 else r"(\d+)" if next(is_group) else piece
        for place, piece in enumerate(pieces)
    )


def _in_groups(new: str, groups: Sequence[int], *, shifted: bool) -> str | None:
    """The new text with numbers made of the groups; None if a group is not used.

    A number becomes the first unused group of its value; else, if `shifted`, the next unused group
    plus a constant.
    """
    unused = list(range(len(groups)))

    def replaced(found: re.Match[str]) -> str:
        value = int(found[0])
        if found[0] != str(value):
            return found[0]
        same = next((group for group in unused if groups[group] == value), None)
        if same is not None:
            unused.remove(same)
            digit_follows = new[found.end() : found.end() + 1].isdecimal()
            return f"{{{same + 1}}}" if digit_follows else rf"\{same + 1}"
        if shifted and unused:
            group = unused.pop(0)
            return f"{{{group + 1}{value - groups[group]:+d}}}"
        return found[0]

    text = _NUMBER.sub(replaced, new)
    return None if unused else text


def with_any_numbers(parts: Sequence[str]) -> str:
    r"""Dotted parts as a regular expression, ``\d+`` for every number."""
    return r"\.".join(re.sub(r"\d+", r"\\d+", escaped(part)) for part in parts)


def escaped(text: str) -> str:
    """The text as a regular expression, with as few backslashes as it needs."""
    return re.sub(r"[.^$*+?{}\[\]\\|()]", lambda found: rf"\{found[0]}", text)


def _cheapest(
    old: str, new: str, steps: Sequence[_Step], costs: dict[Rewrite, float]
) -> list[Piece]:
    """The cheapest way from the start of both keys to their ends."""
    olds, news = old.split("."), new.split(".")
    best: dict[tuple[int, int], tuple[float, _Step | None]] = {(0, 0): (0.0, None)}
    for step in steps:
        i, a, j, b, rewrite = step
        if (i, j) not in best:
            continue
        cost = best[i, j][0] + (costs[rewrite] if rewrite is not None else 0.0)
        if (a, b) not in best or cost < best[a, b][0]:
            best[a, b] = cost, step
    pieces: list[Piece] = []
    at = len(olds), len(news)
    starts = [0]
    for part in olds:
        starts.append(starts[-1] + len(part) + 1)
    while (step_to := best[at][1]) is not None:
        i, a, j, _, rewrite = step_to
        if rewrite is not None:
            pieces.append(Piece(rewrite, starts[i], starts[a] - 1))
        at = i, j
    return pieces[::-1]
