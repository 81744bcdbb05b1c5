"""Which tensors go on: those that a pattern finds, or all others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ckpt.rules.patterns import Pattern
from ckpt.rules.planned import Planned


@dataclass(frozen=True, slots=True)
class Choice:
    """Keep the tensors in whose key a pattern is found, or drop them.

    Attributes:
        text: What to call it in messages.
        pattern: A regular expression, found anywhere in the key.
        keeps: Whether what it finds is kept; else it is dropped.
    """

    text: str
    pattern: str
    keeps: bool
    _compiled: Pattern = field(repr=False, compare=False)

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        return [tensor for tensor in tensors if self._finds(tensor.key) == self.keeps]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if any(map(self._finds, keys)) else self.pattern

    def _finds(self, key: str) -> bool:
        return self._compiled.search(key) is not None


def drop(pattern: str) -> Choice:
    """Leave out the tensors in whose key `pattern` is found.

    Raises:
        RuleError: It cannot be read.
    """
    return _choice("drop", pattern, keeps=False)


def keep(pattern: str) -> Choice:
    """Leave out the tensors in whose key `pattern` is not found.

    Raises:
        RuleError: It cannot be read.
    """
    return _choice("keep", pattern, keeps=True)


def _choice(verb: str, pattern: str, *, keeps: bool) -> Choice:
    text = f"{verb} '{pattern}'"
    return Choice(text, pattern, keeps, Pattern(pattern, name=text))
