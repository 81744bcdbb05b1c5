r"""Patterns that match some keys and no others, for rules that drop or transpose."""

import re
from collections.abc import Iterator, Sequence

from ckpt.infer.rules.cutting import escaped, with_any_numbers

_DEEPEST = 4


def patterns_for(wanted: Sequence[str], others: Sequence[str]) -> list[str]:
    """Regular expressions that together match all of `wanted` and none of `others`.

    Those that match an end are joined: ``(relative_position_index|attn_mask)$``.
    """
    left = dict.fromkeys(wanted)
    suffixes: list[str] = []
    patterns: list[str] = []
    while left:
        key = next(iter(left))
        for pattern in _patterns(key):
            compiled = re.compile(pattern)
            if not any(compiled.search(other) for other in others):
                break
        left = {other: None for other in left if not compiled.search(other)}
        if pattern.endswith("$") and not pattern.startswith("^"):
            suffixes.append(pattern.removesuffix("$"))
        else:
            patterns.append(pattern)
    ends = [f"({'|'.join(suffixes)})$"] if len(suffixes) > 1 else [f"{end}$" for end in suffixes]
    return _needed([*ends, *patterns], wanted)


def _needed(patterns: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The patterns that still find a key when those before them have taken theirs."""
    left, needed = list(wanted), []
    for pattern in patterns:
        others = [key for key in left if not re.search(pattern, key)]
        if len(others) < len(left):
            needed.append(pattern)
        left = others
    return needed


def _patterns(key: str) -> Iterator[str]:
    """Ever narrower patterns that match a key: its end, its start, all of it."""
    parts = key.split(".")
    for depth in range(1, min(_DEEPEST, len(parts)) + 1):
        yield with_any_numbers(parts[-depth:]) + "$"
        yield r"\b" + with_any_numbers(parts[-depth:]) + "$"
        if depth < len(parts):
            yield "^" + with_any_numbers(parts[:depth]) + r"\."
    yield "^" + with_any_numbers(parts) + "$"
    yield "^" + escaped(key) + "$"
