"""Note: add a remark to a version."""

from ckpt.errors import UsageError
from ckpt.registry.later_words import Words, add_words
from ckpt.registry.registry import InRegistry, Registry


def note(ref: str, message: str, *, registry: InRegistry | None = None) -> Words:
    """Add a remark to a version, with its author and the time; the version itself never changes.

    Raises:
        RefError: There is no such version.
        UsageError: The remark is empty or too long.

    Example:
        >>> ckpt.note("net:v1", "trained on the old labels").text
        'trained on the old labels'
    """
    if not message.strip():
        raise UsageError("the note is empty", hint=f"ckpt note {ref} -m TEXT")
    return add_words(Registry.of(registry), ref, text=message)
