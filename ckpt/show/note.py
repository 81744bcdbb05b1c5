"""A note that was added to a version, as text and as JSON."""

from typing import Any

from ckpt.registry.later_words import Words
from ckpt.show.look.fields import fields


def noted_text(words: Words) -> str:
    """One line."""
    ref = words.version.ref
    return f"{ref}: note added" if words.text else f"{ref} has this note already"


def noted_data(words: Words) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(words, "model=version.model", "version=version.label"),
        "note": words.text or None,
    }
