"""Prove the plan of a rename by running the old and the new class, or refuse it."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ckpt.definitions import Definition, definition_of
from ckpt.errors import CkptError, PlanError, UsageError
from ckpt.io.documents.toml import text_of
from ckpt.opened.states import OpenedState
from ckpt.ops.load import load
from ckpt.ops.rename.proof.given import read_inputs
from ckpt.ops.rename.rule_order import Places
from ckpt.prove.inputs import HINT
from ckpt.prove.proving import prove
from ckpt.prove.result import Alternative, Proof
from ckpt.prove.runs import State
from ckpt.prove.spelling import spelled
from ckpt.prove.values import same_result
from ckpt.refs import DefinitionRef, parse_ref
from ckpt.registry.registry import Registry
from ckpt.rules.at_once import AtOnce
from ckpt.rules.document import rules_document
from ckpt.rules.expressions import Source, sources_of
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Planned, Rule
from ckpt.rules.substitution import RenameRule
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.prove.inputs import Given

Replan = Callable[[Sequence[Rule]], Plan]
Both = tuple[Definition, Definition]
NO_ANSWER = "the mapping is wrong there, or the models compute different things"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a rename was asked for, which an answer changes.

    Attributes:
        places: The rules that were given, and where another one would go.
        applied: All rules, with those that were found.
        replan: The plan that other rules lead to.
        typed: The command without rules, to the class that the result fits.
    """

    places: Places
    applied: Sequence[Rule]
    replan: Replan
    typed: str


def proved(
    plan: Plan,
    opened: OpenedState,
    both: Both,
    given: "Given | PathLike[str]",
    asked: Asked,
    registry: Registry,
) -> Proof:
    """Run both classes with the tensors of a file or version; see `ckpt.prove`.

    Args:
        plan: What becomes of every tensor of the source.
        opened: The source.
        both: The definition that it fits, and the one that the result fits.
        given: As `ckpt.prove.proving.prove` takes it; or a file that holds the tensors.
        asked: How the plan was asked for.
        registry: Where versions are looked up.

    Raises:
        PlanError: The outputs differ, or prove nothing; the hint has the rules that agree.
    """
    inputs = read_inputs(Path(given)) if isinstance(given, PathLike) else given
    known = {key for tensor in plan.tensors for key in sources_of(tensor.made_of)}
    known |= {dropped.key for dropped in plan.dropped}
    known |= {entry.key for entry in both[0].entries()}
    state = load(opened.ref, registry=registry)
    for key in state.keys() - known:  # names that a safetensors file only notes
        del state[key]
    proof = prove(plan, state, *both, inputs)
    if proof.agrees and proof.influential:
        return proof
    hint = None
    if proof.alternative is not None:
        hint = _answer(proof.alternative, plan, opened.entries, state, asked)
    raise refusal(proof, (both[0].ref, both[1].ref), hint)


def both_definitions(old: object, new: object, arguments: Mapping[str, object] | None) -> Both:
    """The definitions that a proof runs; a `UsageError` if one is missing."""
    refs = [parse_ref(it) for it in (old, new) if isinstance(it, str)]
    if None in (old, new) or not all(isinstance(ref, DefinitionRef) for ref in refs):
        raise UsageError("a proof runs two definitions", hint="--from OLD_DEF --to NEW_DEF --prove")
    return definition_of(old, arguments), definition_of(new, arguments)


def refusal(proof: Proof, names: tuple[str, str], answer: str | None) -> PlanError:
    """The error about a proof that failed, of two definitions; its hint is the answer, if any."""
    old, new = names
    if proof.agrees:
        return PlanError(
            f"{old} and {new} give the same outputs, but no tensor influences them: nothing is "
            "proved",
            hint=HINT,
        )
    own, drawn = proof.largest
    worst = own if drawn is None else drawn
    by = f"by {worst:.2g} of the largest" if math.isfinite(worst) else "of another kind or shape"
    parts = [f"{old} and {new} give different outputs{_weights(proof)}, {by}"]
    if proof.differs_at:
        one, other = (module or "the root" for module in proof.differs_at)
        parts.append(f"they first differ at {one} and {other}")
    if proof.seeded:
        parts.append("forward draws random numbers, which may be the reason")
    return PlanError(
        "; ".join(parts),
        hint=answer or NO_ANSWER,
    )


def _weights(proof: Proof) -> str:
    return "" if proof.largest[1] is None else " with random weights"


def _answer(
    found: Alternative,
    plan: Plan,
    entries: Sequence[TensorEntry],
    state: State,
    asked: Asked,
) -> str:
    """What to type for an alternative; the rule has been tried where it is to be typed."""

    def agrees(rules: Sequence[Rule]) -> bool:
        with contextlib.suppress(CkptError):  # it may not go with the other rules
            made = {tensor.key: tensor.made_of for tensor in asked.replan(rules).tensors}
            return same_result(made, wanted, state)
        return False

    shapes = {key: made.shape for key, made in found.made.items()}
    wanted = {tensor.key: found.made[tensor.key] for tensor in plan.tensors}
    places = asked.places
    is_option = bool(found.moves) and places.option is not None
    place = places.option if is_option and places.option is not None else places.table
    names, met = _names_at(plan, entries, places.rules[:place])
    if {*found.moves, *found.moves.values(), *found.keys} <= names.keys():
        for more in spelled(found, names, met, shapes):
            if agrees([*places.rules[:place], *more, *places.rules[place:]]):
                option = is_option and isinstance(more[0], RenameRule | AtOnce)
                return f"outputs agree with {found.text}:  {_typed(more, option=option)}"
    more = next(spelled(found, {key: key for key in wanted}, [*wanted], shapes))
    text = f"outputs agree with {found.text}"
    if asked.applied and agrees(every := [*asked.applied, *more]):
        return f"{text}:\n{asked.typed} --rules FILE\nwith these lines in FILE:\n{_file(every)}"
    then = "rename the result of these rules with --check NEW_DEF"
    return f"{text}; {then} {_typed(more, option=False)}"


def _names_at(
    plan: Plan, entries: Sequence[TensorEntry], rules: Sequence[Rule]
) -> tuple[dict[str, str], list[str]]:
    """By key of the result, the key that its tensor has after some rules; and all such keys."""
    before: Sequence[Planned] = [Planned(e.key, Source(e.key, e.dtype, e.shape)) for e in entries]
    if rules:
        before = plan_tensors(entries, rules).tensors
    met = {tensor.made_of: tensor.key for tensor in before}
    names = {it.key: met[it.made_of] for it in plan.tensors if it.made_of in met}
    return names, [tensor.key for tensor in before]


def _typed(rules: Sequence[Rule], *, option: bool) -> str:
    """The option, or the rule file."""
    if option:
        return " ".join(f"--rule {quote(rule.text)}" for rule in rules)
    return f"--rules FILE:\n{_file(rules)}"


def _file(rules: Sequence[Rule]) -> str:
    return text_of({"rules": rules_document(rules)}).rstrip()
