"""Rules that were found, and what must be settled before they are used."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ckpt.errors import PlanError, RuleError
from ckpt.infer.questions import Question, doubtful_operations, rules_of
from ckpt.infer.result import (
    COPIES,
    DROPPED,
    Confidence,
    Inference,
    InferredOperation,
    Match,
)
from ckpt.infer.rules.synthesis import synthesise
from ckpt.rules.document import typed
from ckpt.rules.key_map import KeyMap
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

PROOF = "--from OLD_DEF --prove"
_NAMED = 3  # ambiguous keys in a message


@dataclass(frozen=True, slots=True)
class FoundRules:
    """The mapping from one ref to another, and the rules that express it.

    Attributes:
        source: The name of the source.
        target: The name of the target.
        inference: Which key becomes which, and how sure that is.
        rules: Applied to the source, first to last.
        wanted: The tensors of the target.
        questions: What is ambiguous.
        entries: The tensors of the source, after the rules that were given.
        provable: Whether a proof that was not asked for could decide it.
    """

    source: str
    target: str
    inference: Inference
    rules: tuple[Rule, ...]
    wanted: tuple[TensorEntry, ...]
    questions: tuple[Question, ...] = ()
    entries: tuple[TensorEntry, ...] = ()
    provable: bool = False


class UnsettledError(PlanError):
    """The mapping `found` is in part a guess."""

    def __init__(self, message: str, found: FoundRules, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.found = found


def expect_settled(found: FoundRules) -> None:
    """Refuse a mapping that is in part a guess.

    Raises:
        UnsettledError: A key is ambiguous; the message names it and its candidates.
    """
    operations = doubtful_operations(found.inference)
    asked = [*map(_question, found.questions), *map(_operation, operations)]
    if not asked:
        return
    named = "; ".join(asked[:_NAMED])
    more = f"; and {len(asked) - _NAMED:,} more" if len(asked) > _NAMED else ""
    rules = [rule for question in found.questions if (rule := question.rule) is not None]
    options = " ".join(filter(None, map(typed, rules[:_NAMED])))
    guesses = f"{options}  takes the best guess\n" if options else ""
    proof = f"{PROOF}  decides, where the old class is there\n" if found.provable else ""
    raise UnsettledError(
        f"{found.source}: ambiguous: {named}{more}",
        found,
        f"{proof}{guesses}ckpt diff {found.source} {found.target} --map  shows all\n"
        "decide with a --rule for one of them, or --ask; --accept-ambiguous accepts the best guess",
    )


def expect_decided(found: FoundRules, influential: Collection[str]) -> None:
    """Refuse a mapping in which a guess moves no tensor that the outputs of a proof depend on.

    Raises:
        UnsettledError: A proof with these tensors does not decide a guess.
    """
    asked = [[match.target for match in it.matches] for it in found.questions]
    doubtful = doubtful_operations(found.inference)
    asked += [[key for it in group for key in it.targets] for group in doubtful]
    if not all(any(key in influential for key in keys) for keys in asked):
        expect_settled(found)


def known_rules(found: FoundRules) -> list[Rule]:
    """The rules of what is not ambiguous, after those that were given; other keys stay."""
    open_keys = {key for it in found.inference.ambiguous() for key in _sources(it)}
    sure = [m for m in found.inference.matches if m.source not in open_keys]
    stay = [Match(key, key, Confidence.CERTAIN, 1.0) for key in sorted(open_keys)]
    operations = tuple(it for it in found.inference.operations if not open_keys & {*it.sources})
    inference = replace(found.inference, matches=(*sure, *stay), operations=operations)
    if not sure and not operations:
        return []
    try:
        return synthesise(found.entries, found.wanted, inference)
    except RuleError:  # a new key is also one that stays
        return [KeyMap("map", {match.source: match.target for match in sure})]


def open_questions(found: FoundRules) -> list[tuple[str, list[Rule]]]:
    """What is ambiguous, in words, and the rules that confirm the best guess, if any does."""
    asked = [
        (f"{_question(it)}; best guess: {it.first.target}", [it.rule] if it.rule else [])
        for it in found.questions
    ]
    doubtful = doubtful_operations(found.inference)
    asked += [(_operation(it), rules_of(it, found.entries, found.wanted)) for it in doubtful]
    return asked


def _sources(it: Match | InferredOperation) -> tuple[str, ...]:
    return (it.source,) if isinstance(it, Match) else it.sources


def expect_companions(found: FoundRules) -> None:
    """Refuse a mapping that drops the scales of quantised weights, or the alpha of a LoRA.

    Raises:
        PlanError: It does; the hint has the option that asks for it.
    """
    lost = found.inference.lost_companions
    if not lost:
        return
    names = "|".join(re.escape(name) for name in dict.fromkeys(lost.values()))
    more = f" and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else ""
    raise PlanError(
        f"{found.source}: {found.target} has no place for {', '.join([*lost][:_NAMED])}{more}, "
        "which its weights need",
        hint=f"--drop '(^|\\.)({names})$'  drops them; the weights alone have other values",
    )


def _question(question: Question) -> str:
    """E.g. ``x.weight could become a.weight or b.weight (and 3 keys with it)``."""
    match, others = question.first, len(question.matches) - 1
    if match.evidence.startswith(COPIES):
        return f"{match.evidence}; the first is the guess"
    targets = [target for target in match.candidates if target != DROPPED]
    shown = " or ".join(targets[:_NAMED])
    more = f" or {len(targets) - _NAMED:,} others" if len(targets) > _NAMED else ""
    dropped = " or be dropped" if DROPPED in match.candidates else ""
    together = f" (and {others:,} {'key' if others == 1 else 'keys'} with it)" if others else ""
    return f"{match.source} could become {shown}{more}{dropped}{together}"


def _operation(operations: Sequence[InferredOperation]) -> str:
    """E.g. ``attn.qkv.weight (split into attn.q.weight, …; and 3 more)``."""
    first, others = operations[0], len(operations) - 1
    named, into = (
        ", ".join(keys if len(keys) <= _NAMED else (keys[0], "…", keys[-1]))
        for keys in (first.sources, first.targets)
    )
    more = f"; and {others:,} more" if others else ""
    return f"{named} ({first.verb} into {into}{more})"
