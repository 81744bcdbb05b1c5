"""Which tensors go on: those that a pattern finds, or all others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import regex

from ckpt.errors import RuleError
from ckpt.rules.planned import Planned
from ckpt.rules.rule import MATCH_SECONDS


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
    _compiled: "regex.Pattern[str]" = field(repr=False, compare=False)

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        return [tensor for tensor in tensors if self._finds(tensor.key) == self.keeps]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if any(map(self._finds, keys)) else self.pattern

    def _finds(self, key: str) -> bool:
        try:
            return self._compiled.search(key, timeout=MATCH_SECONDS) is not None
        except TimeoutError as error:
            raise RuleError(f"{self.text} took over {MATCH_SECONDS} s on one key") from error


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
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise RuleError(f"{verb} '{pattern}' is no regular expression: {error}") from error
    return Choice(f"{verb} '{pattern}'", pattern, keeps, compiled)
