r"""Patterns that match some keys and no others, for rules that drop or transpose."""

import re
from collections.abc import Iterator, Sequence

from ckpt.infer.rules.rewrites import escaped, with_any_numbers

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
    if len(suffixes) > 1:
        return [f"({'|'.join(suffixes)})$", *patterns]
    return [*(f"{suffix}$" for suffix in suffixes), *patterns]


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
