"""A tensor of the result, as a plan describes it; and what all rules have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ckpt.rules.expressions import Expression


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor of the result.

    Attributes:
        key: Its key.
        made_of: The expression that makes it; `Source` for a tensor that keeps its elements.
        rules: The numbers, from 1, of the rules that made or changed it.
    """

    key: str
    made_of: Expression
    rules: tuple[int, ...] = ()


class Rule(Protocol):
    """One instruction."""

    @property
    def text(self) -> str:
        """Its name in messages and in the record."""

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """What it looks for and does not find; None if it finds everything.

        Args:
            keys: The keys before it ran.
            changed: Whether it changed anything.
        """

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """The tensors after the rule; tensors that it leaves alone stay the same Python objects.

        Raises:
            PlanError: It does not fit the tensors.
            RuleError: A pattern ran too long, or a key became too long.
        """


class Renaming(ABC):
    """A rule that gives names alone."""

    __slots__ = ()

    @abstractmethod
    def apply(self, key: str) -> str:
        """The new name of a key; the key itself if the rule leaves it alone."""

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        return with_keys(tensors, self.apply)


def with_keys(tensors: Sequence[Planned], rename: Callable[[str], str]) -> list[Planned]:
    """The tensors with renamed keys; a tensor that keeps its key stays the same object."""
    after = []
    for tensor in tensors:
        key = rename(tensor.key)
        new = tensor if key == tensor.key else Planned(key, tensor.made_of, tensor.rules)
        after.append(new)
    return after
