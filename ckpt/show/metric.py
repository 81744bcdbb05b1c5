"""Metrics that were added to a version, as text and as JSON."""

from typing import Any

from ckpt.registry.later_words import Words
from ckpt.show.look.fields import fields
from ckpt.show.look.words import metric, printable


def measured_text(words: Words) -> str:
    """One line, with the values before."""
    if not words.metrics:
        return f"{words.version.ref} has these values already"
    values = []
    for name, value in words.metrics.items():
        before = f" (before: {metric(name, words.before[name])})" if name in words.before else ""
        values.append(f"{printable(name)} {metric(name, value)}{before}")
    return f"{words.version.ref}  {'  '.join(values)}"


def measured_data(words: Words) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(words, "model=version.model", "version=version.label", "added=metrics", "before"),
        "metrics": words.version.metrics,
    }
