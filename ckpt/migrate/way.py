"""A way: the migrations that turn one state_dict into another, and what becomes of its tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ckpt.errors import CkptError
from ckpt.migrate.migration import Migration
from ckpt.rules.planned import Planned, Rule
from ckpt.rules.prefixes import Unwrap


class AmbiguousEntryError(CkptError):
    """A state_dict can be read as more than one schema, and the results would differ."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Way:
    """How a state_dict becomes another.

    Attributes:
        steps: The migrations, in order; none if it fits as it is.
        back: Whether they are undone, last to first.
        planned: How each tensor of the result is made of the source.
        merged: Whether they are of branches that no path of schemas connects.
        unwraps: Whether the prefixes of wrappers are removed first.
    """

    steps: tuple[Migration, ...]
    planned: tuple[Planned, ...] = field(repr=False)
    back: bool = False
    merged: bool = False
    unwraps: bool = False

    @property
    def rules(self) -> list[Rule]:
        """The rules of all steps, in order; of the way there, if this is the way back."""
        unwrap: list[Rule] = [Unwrap()] if self.unwraps else []
        return [*unwrap, *(rule for step in self.steps for rule in step.rules)]

    @property
    def names(self) -> str:
        """The migrations in words: ``conv-to-embed, then split-qkv``."""
        steps = reversed(self.steps) if self.back else self.steps
        return ("back by " if self.back else "") + ", then ".join(step.name for step in steps)


def only(found: Sequence[Way]) -> Way | None:
    """The first of several ways with one result."""
    for way in found[1:]:
        if results(way) != results(found[0]):
            raise differ(found[0], way)
    return found[0] if found else None


def results(way: Way) -> dict[str, object]:
    """How each tensor of the result is made, by its key."""
    return {tensor.key: tensor.made_of for tensor in way.planned}


def differ(one: Way, other: Way) -> AmbiguousEntryError:
    """The error about two ways whose results differ."""
    mine, theirs = results(one), results(other)
    key = next(key for key in (*mine, *theirs) if mine.get(key) != theirs.get(key))
    names = [way.names or "no migration" for way in (one, other)]
    return AmbiguousEntryError(
        f"two ways lead there, and make {key} of different tensors: {names[0]}; and {names[1]}",
        hint=f"--enter {(one.steps or other.steps)[0].name}  says which migration comes first",
    )
