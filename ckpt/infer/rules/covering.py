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
    if len(suffixes) > 1:
        return [f"({'|'.join(suffixes)})$", *patterns]
    return [*(f"{suffix}$" for suffix in suffixes), *patterns]


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
