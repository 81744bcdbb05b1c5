"""A tensor of the result, as a plan has it; and what every rule can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ckpt.rules.expressions import Expression


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor of the result.

    Attributes:
        key: Its key.
        made_of: What it is made of; `Source` for one that keeps its elements.
        rules: The numbers, from 1, of the rules that had a part in it.
    """

    key: str
    made_of: Expression
    rules: tuple[int, ...] = ()


class Rule(Protocol):
    """One instruction."""

    @property
    def text(self) -> str:
        """What to call it in messages and in the record."""

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """What it looks for and does not find.

        Args:
            keys: Before it ran.
            changed: Whether it changed anything.
        """

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """The tensors after it; those that it leaves alone are the very same objects."""


def with_keys(tensors: Sequence[Planned], rename: Callable[[str], str]) -> list[Planned]:
    """The tensors with other keys."""
    after = []
    for tensor in tensors:
        key = rename(tensor.key)
        after.append(tensor if key == tensor.key else replace(tensor, key=key))
    return after
