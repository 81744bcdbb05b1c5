"""Modules that moved: many renamed keys that kept their names under another parent, as one.

Law: every pair is in exactly one move, or is left.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

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
    counts = Counter(module for key in keys for module in _modules(key))
    candidates = {pair: list(_candidates(*pair)) for pair in renamed}
    found = Counter(place for places in candidates.values() for place in places)
    moves: Counter[Pair] = Counter()
    left: list[Pair] = []
    for pair, places in candidates.items():
        # From the root down, so that a module that moved with its parent is not a move of its own.
        whole = next((place for place in places if found[place] == counts[place[0]] > 1), None)
        if whole is None:
            left.append(pair)
        else:
            moves[whole] += 1
    return [Move(old, new, count) for (old, new), count in moves.items()], left


def _modules(key: str) -> Iterator[str]:
    """The modules above a key: for ``a.b.weight`` the root, ``a`` and ``a.b``."""
    yield ""
    parts = key.split(".")
    for length in range(1, len(parts)):
        yield ".".join(parts[:length])


def _candidates(old: str, new: str) -> Iterator[Pair]:
    """Modules (old, new) under which the rest of both keys is the same, topmost first.

    Nothing if only the last part is the same: ``conv.weight`` to ``embed.weight`` is not a move.
    """
    mine, theirs = old.split("."), new.split(".")
    shared = 0
    while shared < min(len(mine), len(theirs)) and mine[-1 - shared] == theirs[-1 - shared]:
        shared += 1
    for length in range(shared if shared > 1 else 0, 0, -1):
        yield ".".join(mine[: len(mine) - length]), ".".join(theirs[: len(theirs) - length])
