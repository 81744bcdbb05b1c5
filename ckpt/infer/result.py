"""What an inference says: which key becomes which, how sure that is, and what stays open.

Law: every source key is in a match, in an operation or in `dropped`; every target key is in
exactly one match or operation, or in `missing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Confidence(StrEnum):
    """How sure a pair is.

    `CERTAIN`: the same bytes and no other with them, or no other of that shape on either side.
    `LIKELY`: the evidence prefers it, by a margin. `AMBIGUOUS`: it does not.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Match:
    """A tensor that keeps its elements.

    Attributes:
        source: Its key.
        target: Its key afterwards; a source may have several, in a match each.
        confidence: How sure that is.
        margin: How much better than the next best, from 0 to 1.
        candidates: Of an ambiguous one: the target keys between which nothing decides, `target`
            among them, which is a guess.
        evidence: What decided, in words.
    """

    source: str
    target: str
    confidence: Confidence
    margin: float
    candidates: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """Tensors that are made of others.

    Attributes:
        verb: ``split``, ``concat``, ``transpose`` or ``reshape``.
        sources: Several of a concat, in the order of the parts.
        targets: Several of a split, in the order of the parts.
        confidence: How sure that is.
        margin: From 0 to 1.
        dim: Of a split or concat.
        sizes: Of the parts along it.
        evidence: What decided, in words.
    """

    verb: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    confidence: Confidence
    margin: float
    dim: int = 0
    sizes: tuple[int, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Inference:
    """The whole mapping; see the law of this module."""

    matches: tuple[Match, ...]
    operations: tuple[Operation, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing is ambiguous."""
        return not any(self.ambiguous())

    def ambiguous(self) -> Iterator[Match | Operation]:
        """What only a person, or values, can decide."""
        yield from (each for each in self.matches if each.confidence is Confidence.AMBIGUOUS)
        yield from (each for each in self.operations if each.confidence is Confidence.AMBIGUOUS)

    @property
    def renames(self) -> dict[str, list[str]]:
        """Source key to target keys, of what keeps its elements, in the order of `matches`."""
        found: dict[str, list[str]] = {}
        for match in self.matches:
            found.setdefault(match.source, []).append(match.target)
        return found
