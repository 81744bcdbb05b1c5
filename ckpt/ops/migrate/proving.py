"""Whether the old class and the new one compute the same, with the rules between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt.definitions import Definition, DefinitionError
from ckpt.errors import PlanError, UsageError
from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.schema import schema_of
from ckpt.opened import Opened, OpenedDefinition
from ckpt.ops.rename.proof import refusal
from ckpt.prove.result import Proof, UnprovableError
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ran:
    """What running both classes showed.

    Attributes:
        proof: That their outputs agree; None if they could not be compared.
        why_not: Why not; None if they were.
    """

    proof: Proof | None = None
    why_not: str | None = None

    @property
    def how(self) -> str:
        """How the migration was checked, in the word of its file."""
        return "proved" if self.proof is not None and self.proof.complete else "fitted"


def run_both(opened: Opened, new: Definition, rules: Sequence[Rule]) -> Ran:
    """Run both classes on one input, the old one with new weights.

    Args:
        opened: The old form; only a class of this work tree can be run.
        new: The class.
        rules: Lead from one to the other.

    Raises:
        PlanError: Their outputs differ.
    """
    from ckpt.prove.proving import prove

    if not isinstance(opened, OpenedDefinition) or opened.definition.path is None:
        return Ran(why_not="the old class is not at hand:  --from OLD.py:Class  runs both")
    old, state = opened.definition, opened.state
    found = that_find(begin(schema_of(state)).planned, rules)
    plan = plan_tensors(state.entries, found, aliases=(*state.tied, *state.others))
    try:
        proof = prove(plan, _weights(old), old, new)
    except (UnprovableError, DefinitionError, UsageError) as error:
        return Ran(why_not=str(error))
    if not proof.agrees:
        differs = refusal(proof, (old, new), None)
        hint = "mend the rules; or, if the class is meant to differ:  --no-prove"
        raise PlanError(str(differs), hint=hint)
    return Ran(proof)


def _weights(definition: Definition) -> "dict[str, Tensor]":
    """New weights, always the same ones."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dict(definition.build().state_dict())
