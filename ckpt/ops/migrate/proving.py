"""Whether the old class and the new one compute the same, with the rules between them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.definitions import Definition
from ckpt.definitions.importing import DefinitionError
from ckpt.errors import PlanError, UsageError
from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.described import BuildError
from ckpt.migrate.schema import other_numbers, schema_of
from ckpt.ops.migrate.old_form import OldForm
from ckpt.ops.rename.proof import refusal
from ckpt.prove.result import Proof, UnprovableError
from ckpt.prove.specs import InputSpec
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule


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


def run_both(
    old: OldForm, new: Definition, rules: Sequence[Rule], inputs: Sequence[InputSpec | str] = ()
) -> Ran:
    """Run both classes on one input, the old one with new weights.

    Args:
        old: The old form.
        new: The class.
        rules: Lead from one to the other.
        inputs: What to run them on; by default derived from the old class.

    Raises:
        PlanError: Their outputs differ.
        DefinitionError: One does not run on `inputs`.
    """
    from ckpt.prove.proving import prove

    if old.runs is None:
        return Ran(why_not=old.why_not)
    state = old.state
    found = that_find(begin(schema_of(state)).planned, rules)
    plan = plan_tensors(state.entries, found, aliases=(*state.tied, *state.others))
    numbers = other_numbers(state.versions, new.state().versions)
    try:
        with old.runs() as model:
            proof = prove(plan, model.weights(), model, new, [*inputs] or None, numbers=numbers)
    except (UnprovableError, DefinitionError, BuildError, UsageError) as error:
        if inputs and not isinstance(error, UnprovableError):
            raise  # somebody asked for this input
        hint = (error.hint or "").partition("\n")[0]
        text = str(error).rstrip(": ")  # an AssertionError has no text
        return Ran(why_not=f"{text}:  {hint}" if hint.startswith("--") else text)
    if not proof.agrees:
        differs = refusal(proof, (model.ref, new.ref), None)
        hint = "mend the rules; or, if the class is meant to differ:  --no-prove"
        raise PlanError(str(differs), hint=hint)
    return Ran(proof)
