"""Keep or drop the tensors whose keys match a pattern."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ckpt.rules.patterns import Pattern
from ckpt.rules.planned import Planned


@dataclass(frozen=True, slots=True)
class Choice:
    """Keep the tensors whose keys match a pattern, or drop them.

    Attributes:
        text: Its name in messages.
        pattern: A regular expression that may match anywhere in the key.
        keeps: Whether the matching tensors are kept; otherwise they are dropped.
    """

    text: str
    pattern: str
    keeps: bool
    _compiled: Pattern = field(repr=False, compare=False)

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        return [tensor for tensor in tensors if self._finds(tensor.key) == self.keeps]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if any(map(self._finds, keys)) else self.pattern

    def _finds(self, key: str) -> bool:
        return self._compiled.search(key) is not None


def drop(pattern: str) -> Choice:
    """Drop the tensors whose keys match `pattern`.

    Raises:
        RuleError: It cannot be read.
    """
    return _choice("drop", pattern, keeps=False)


def keep(pattern: str) -> Choice:
    """Drop the tensors whose keys do not match `pattern`.

    Raises:
        RuleError: It cannot be read.
    """
    return _choice("keep", pattern, keeps=True)


def _choice(verb: str, pattern: str, *, keeps: bool) -> Choice:
    text = f"{verb} '{pattern}'"
    return Choice(text, pattern, keeps, Pattern(pattern, name=text))
