"""What a case is made of: random choices, and the tricks that it may use."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A file, the tricks that it uses, and the kind of its container."""

    container: str
    tricks: frozenset[str]
    data: bytes


@dataclass
class Draw:
    """Random choices of one case.

    Each case may use a few tricks only ("swarm testing"): a file in which everything is strange
    is refused by everybody, and shows nothing.
    """

    rng: Random
    allowed: frozenset[str]
    used: set[str] = field(default_factory=set)

    def trick(self, name: str, often: float = 0.4) -> bool:
        """Whether to use a trick here."""
        if name not in self.allowed or self.rng.random() >= often:
            return False
        self.used.add(name)
        return True

    def one(self, *values: T) -> T:
        return self.rng.choice(values)

    def make(self, *makers: Callable[[], T]) -> T:
        """The result of one of these; the others are never called."""
        return self.rng.choice(makers)()

    def chance(self, often: float) -> bool:
        return self.rng.random() < often
