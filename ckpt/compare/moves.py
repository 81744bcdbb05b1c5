"""Modules that moved: many renamed keys that kept their names under another parent, as one.

Law: every pair is in exactly one move, or is left.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Move:
    """A module of which every key is now under another module, with its name unchanged.

    Attributes:
        old: The module, ``encoder``; empty for the root.
        new: The module that has the same names now.
        count: Number of keys.
    """

    old: str
    new: str
    count: int


def find_moves(keys: Iterable[str], renamed: Sequence[Pair]) -> tuple[list[Move], list[Pair]]:
    """Find modules that moved whole, the largest ones.

    Args:
        keys: All keys of the first side.
        renamed: (old key, new key) of every renamed tensor.

    Returns:
        The moves in the order of their first keys, and the pairs that are in none.
    """
    inside: dict[tuple[int, str], int] = {}  # the number of each module, by parent and name

    def modules(key: str) -> list[int]:
        """The modules above a key: for ``a.b.weight`` the root, ``a`` and ``a.b``."""
        found = [0]
        for part in key.split(".")[:-1]:
            found.append(inside.setdefault((found[-1], part), len(inside) + 1))
        return found

    if not renamed:
        return [], []
    counts = Counter(module for key in keys for module in modules(key))
    candidates = {pair: _candidates(pair, *map(modules, pair)) for pair in renamed}
    found = Counter(place for places in candidates.values() for place, _ in places)
    moves: dict[tuple[int, int], Move] = {}
    left: list[Pair] = []
    for pair, places in candidates.items():
        # From the root down, so that a module that moved with its parent is not a move of its own.
        for place, shared in places:
            if found[place] == counts[place[0]] > 1:
                old, new = (_above(key, shared) for key in pair)
                moves.setdefault(place, Move(old, new, found[place]))
                break
        else:
            left.append(pair)
    return [*moves.values()], left


def _above(key: str, count: int) -> str:
    """The module that remains of a key without its last parts; empty for the root."""
    return key.rsplit(".", count)[0] if key.count(".") >= count else ""


def _candidates(
    pair: Pair, olds: Sequence[int], news: Sequence[int]
) -> list[tuple[tuple[int, int], int]]:
    """Modules (old, new) under which the rest of both keys is the same, topmost first.

    Each with the number of parts of that rest. Nothing if only the last part is the same:
    ``conv.weight`` to ``embed.weight`` is not a move.
    """
    ends = zip(*(reversed(key.split(".")) for key in pair), strict=False)
    shared = sum(1 for _ in takewhile(lambda parts: parts[0] == parts[1], ends))
    lengths = range(shared, 0, -1) if shared > 1 else ()
    return [((olds[-length], news[-length]), length) for length in lengths]
