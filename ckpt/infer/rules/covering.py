r"""Patterns that find some keys and no others: what a rule that drops or transposes looks for."""

import re
from collections.abc import Iterator, Sequence

from ckpt.infer.rules.rewrites import escaped

_DEEPEST = 4


def patterns_for(wanted: Sequence[str], others: Sequence[str]) -> list[str]:
    """Regular expressions, each found in some of `wanted` and in none of `others`; in all, all.

    Those that end alike are one: ``(relative_position_index|attn_mask)$``.
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
        left = {each: None for each in left if not compiled.search(each)}
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
    """Ever narrower patterns that find a key: its end, its start, all of it."""
    parts = key.split(".")
    for depth in range(1, min(_DEEPEST, len(parts)) + 1):
        yield _numbered(parts[-depth:]) + "$"
        yield r"\b" + _numbered(parts[-depth:]) + "$"
        if depth < len(parts):
            yield "^" + _numbered(parts[:depth]) + r"\."
    yield "^" + _numbered(parts) + "$"
    yield "^" + escaped(key) + "$"


def _numbered(parts: Sequence[str]) -> str:
    return r"\.".join(re.sub(r"\d+", r"\\d+", escaped(part)) for part in parts)
