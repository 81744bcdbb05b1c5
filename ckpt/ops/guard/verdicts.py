"""Whether a class loads a state_dict: as it is, by migrations, or not at all.

Law: what fits is what torch's own strict loader accepts, asked with the keys that it would get.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ckpt.compare.keys import Fit, fit
from ckpt.errors import CkptError
from ckpt.formats.naming.modules import moved_modules
from ckpt.infer.find_rules import infer_rules
from ckpt.infer.fitting import MOST_INFERRED, Fitting, fitting
from ckpt.infer.questions import Question, questions_of
from ckpt.loading import Answer
from ckpt.migrate.child import plain
from ckpt.migrate.described import Described
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import NUMBER, Schema, schema_of
from ckpt.migrate.way import Way
from ckpt.ops.guard.weights import Weights
from ckpt.ops.migrate.new import drafted
from ckpt.rules.expressions import Source
from ckpt.tensors import NOT_A_TENSOR, StateDict, TensorEntry

Ask = Callable[[StateDict], Answer]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on state_dicts of one form.

    Attributes:
        weights: The state_dicts.
        fit: The fit of the keys that would be loaded.
        by: The migrations that lead there, in words; empty if none are needed.
        reason: Why it is broken although keys and shapes agree; None if they tell.
        fitting: What became of the keys, where that was inferred; None if it is not broken.
        questions: What is ambiguous about that.
        draft: The migration that would mend it; None if none is known for sure.
        undrafted: Why there is none although it is known what became of the keys.
    """

    weights: tuple[Weights, ...]
    fit: Fit
    by: str = ""
    reason: str | None = None
    fitting: Fitting | None = field(default=None, repr=False)
    questions: tuple[Question, ...] = field(default=(), repr=False)
    draft: Migration | None = field(default=None, repr=False)
    undrafted: str | None = None

    @property
    def broken(self) -> bool:
        """Whether the class does not load them."""
        return self.reason is not None or not self.fit.fits


def verdicts_on(
    weights: Iterable[Weights], described: Described, place: Place | None, graph: Graph, ask: Ask
) -> tuple[Verdict, ...]:
    """The verdicts, state_dicts of one form together.

    Args:
        weights: The state_dicts.
        described: The class.
        place: Where its migrations are.
        graph: Its migrations.
        ask: Asks torch.
    """
    forms: dict[str, list[Weights]] = {}
    for one in weights:
        forms.setdefault(json.dumps(plain(one.state), sort_keys=True), []).append(one)
    found = []
    for alike in forms.values():
        verdict = replace(_verdict(alike[0].state, described, graph, ask), weights=tuple(alike))
        found.append(_with_draft(verdict, described, place) if place else verdict)
    return tuple(found)


def _with_draft(verdict: Verdict, described: Described, place: Place) -> Verdict:
    """A verdict with the migration that would mend it, if that is known for sure."""
    if verdict.fitting is None or not verdict.fitting.rules:
        return verdict
    try:
        made = drafted(
            schema_of(verdict.weights[0].state), described.schema, verdict.fitting.rules,
            place=place, message="", on=[described.ref], how="fitted",
            taken=[it.name for it in place.migrations()],
        )  # fmt: skip
    except CkptError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return replace(verdict, undrafted=f"{error}{hint}")
    return replace(verdict, draft=made)


def _verdict(state: StateDict, described: Described, graph: Graph, ask: Ask) -> Verdict:
    wanted = described.state
    named = state.loaded_into(wanted)
    found = fit(named, wanted, ask(named))
    mine, theirs = schema_of(named), described.schema
    differ = mine.number is not None and mine.number != theirs.number
    sure = mine.number is not None or theirs.number is None
    if found.fits and not found.handled and not differ and sure:
        return Verdict((), found)
    try:
        way = graph.way(mine, theirs)
    except CkptError as error:
        return Verdict((), found, reason=str(error))
    if way is not None and (way.steps or not found.fits):
        after = migrated(way, named, theirs.number)
        led = fit(after, wanted, ask(after))
        reason = None if led.fits else f"{way.names or 'it'} leads to other keys"
        by = " and ".join(filter(None, ["the removal of its wrapper" * way.unwraps, way.names]))
        return Verdict((), led, by, reason)
    if found.fits and not differ:
        return Verdict((), found)
    return _broken(state, described, found, mine, ask)


def migrated(way: Way, state: StateDict, number: int | None) -> StateDict:
    """The state_dict at the end of a way, with the number that its class has."""
    made = [TensorEntry(t.key, t.made_of.dtype, t.made_of.shape) for t in way.planned]
    moved = {t.made_of.key: t.key for t in way.planned if isinstance(t.made_of, Source)}
    versions = None
    if state.versions is not None:
        modules = moved_modules(list(state.versions), moved)
        versions = {modules[module]: numbers for module, numbers in state.versions.items()}
        root = {name: it for name, it in versions.get("", {}).items() if name != NUMBER}
        versions[""] = {**root, **({} if number is None else {NUMBER: number})}
    return StateDict(
        tuple(entry for entry in made if entry.dtype != NOT_A_TENSOR),
        tuple(entry.key for entry in made if entry.dtype == NOT_A_TENSOR),
        versions,
    )


def _broken(state: StateDict, described: Described, found: Fit, mine: Schema, ask: Ask) -> Verdict:
    """A broken fit, explained, with the rules that would mend it."""
    if found.fits:
        number = described.schema.number
        reason = f"its keys fit, but its {NUMBER} is {mine.number}, expected {number or 'none'}"
        return Verdict((), found, reason=reason)

    def asked(state: StateDict, *, strict: bool = True) -> Answer | None:
        return ask(state) if strict else None

    explained = fitting(state, described.ref, described.state, asked)
    questions = () if explained.rules else _questions(state, described.state)
    return Verdict((), found, fitting=explained, questions=questions)


def _questions(state: StateDict, wanted: StateDict) -> tuple[Question, ...]:
    """What is ambiguous about the keys of a state_dict that a class does not load."""
    mine, theirs = state.named, wanted.named

    try:
        inference, _ = infer_rules(mine, theirs, most=MOST_INFERRED)
        return questions_of(
            inference,
            mine,
            theirs,
            lambda rule: infer_rules(mine, theirs, [rule], most=MOST_INFERRED)[0],
        )
    except CkptError:  # no rules express it, or there are too many keys
        return ()
