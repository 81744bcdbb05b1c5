"""Find the rules that turn one state_dict into another.

If both sides hold values, these are read: equal bytes prove a pair, unless they are few or
constant, and near values decide where names do not. Law: the rules, applied to the source, give
what the inference says; no ambiguous key is renamed unasked.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from ckpt.compare.allowed import STRICT, Allowed
from ckpt.compare.pairs import hashed
from ckpt.errors import RuleError
from ckpt.infer.engine import infer
from ckpt.infer.questions import questions_of
from ckpt.infer.result import (
    DROPPED,
    ONLY_SHAPE,
    Confidence,
    Inference,
    Match,
)
from ckpt.infer.rules.synthesis import synthesise
from ckpt.infer.settled import FoundRules
from ckpt.io.files import Told, untold
from ckpt.opened import open_ref
from ckpt.opened.named import Named
from ckpt.opened.states import Opened, OpenedDefinition, OpenedFile, OpenedState
from ckpt.registry.registry import InRegistry, Registry
from ckpt.rules.choice import Choice
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Source
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Planned, Rule
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.compare.samples import Samples

_COUNTER = "num_batches_tracked"  # of BatchNorm; files from before torch 0.4.1 have none
MOST_TRIED = 2_000  # keys, for rules to be tried on them


def find_rules(
    source: Named,
    target: Named,
    *,
    registry: InRegistry | None = None,
    arguments: Mapping[str, object] | None = None,
    told: Told = untold,
) -> FoundRules:
    """Find the mapping from one ref to another; for ambiguous keys it has a guess.

    Args:
        source: A version, a file or a definition.
        target: Likewise.
        registry: Where versions are looked up.
        arguments: The arguments of a definition.
        told: Called with the progress of reading.

    Raises:
        RefError: A ref names nothing.
        RuleError: No rules express the mapping.
    """
    registry = Registry.of(registry)
    with open_ref(source, registry, arguments) as a, open_ref(target, registry, arguments) as b:
        return rules_between(a, b, told=told)


def rules_between(
    source: Opened,
    target: Opened,
    first: Sequence[Rule] = (),
    *,
    allowed: Allowed = STRICT,
    told: Told = untold,
) -> FoundRules:
    """`find_rules` for refs that are open.

    Args:
        source: The ref to which the rules apply.
        target: The ref that it should become.
        first: Rules that go before the found ones, and settle as many keys as they can.
        allowed: Where the result may differ from the target.
        told: Called with the progress of reading.
    """
    mine, theirs, samples = source.entries, target.entries, None
    if not isinstance(source, OpenedDefinition) and not isinstance(target, OpenedDefinition):
        mine, theirs, samples = _with_values(source, target, told)
    mine, theirs = (
        replace(side.state, entries=entries).named
        for side, entries in ((source, mine), (target, theirs))
    )
    noted = source.state.tied.keys() - {entry.key for entry in source.entries}
    inferred = partial(infer_rules, mine, theirs, noted=noted, allowed=allowed, samples=samples)
    inference, rules = inferred(first)

    def infer_with(rule: Rule) -> Inference:
        return inferred((*first, rule), most=MOST_TRIED)[0]

    asked = questions_of(inference, mine, theirs, infer_with)
    after = plan_tensors(mine, first).entries_after if first else mine
    return FoundRules(
        source.name, target.name, inference, rules, tuple(target.entries), asked, tuple(after)
    )


def infer_rules(
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
    first: Sequence[Rule] = (),
    *,
    most: int | None = None,
    noted: Collection[str] = (),
    allowed: Allowed = STRICT,
    samples: "tuple[Samples, Samples] | None" = None,
) -> tuple[Inference, tuple[Rule, ...]]:
    """Infer the mapping between two lists of entries, and the rules that express it.

    Args:
        source: Keys unique.
        target: Keys unique.
        first: Rules that go before the found ones, and settle as many keys as they can.
        most: How many keys at most may be left to infer; None for any number.
        noted: Keys of the source that share the tensor of another one and are not stored.
        allowed: Keys that stay although the target lacks them, and keys whose two shapes differ.
        samples: Of the tensors of each side, by key, if both hold values.

    Raises:
        RuleError: No rules express the mapping, or too many keys are left.
        PlanError: The rules of `first` do not work on these keys.
    """
    plan = plan_tensors(source, first) if first else None
    after, settled = _after(source, plan, target)
    if plan and samples:
        moved = {it.new: samples[0][it.old] for it in plan.changes if it.old in samples[0]}
        samples = moved, samples[1]
    shapes = {entry.key: entry.shape for entry in target}
    # Other shapes of as many elements may be a transpose.
    apart = [e.key for e in after if prod(shapes.get(e.key, e.shape)) != prod(e.shape)]
    apart = [key for key in apart if allowed.other_shape(key)]
    known = {*settled, *apart}
    mine, theirs = ([e for e in side if e.key not in known] for side in (after, target))
    if most is not None and max(len(mine), len(theirs)) > most:
        raise RuleError(f"more than {most:,} keys are left")
    inference = _doubted(infer(mine, theirs, samples), allowed)
    kept = [k for k in inference.dropped if k not in shapes and allowed.unexpected_key(k)]
    inference = _with_known(inference, settled, kept, apart)
    rules = synthesise(after, target, inference)
    if noted:
        stored = [entry for entry in source if entry.key not in noted]
        keys = [e.key for e in (plan_tensors(stored, first).tensors if first else stored)]
        rules = [*_that_drop(rules, keys)]
    if counters := _counters(inference, target):
        missing = tuple(key for key in inference.missing if _COUNTER not in key)
        inference = replace(inference, missing=missing)
    return inference, (*first, *rules, *counters)


def _with_known(
    inference: Inference, settled: Sequence[str], kept: Sequence[str], apart: Sequence[str]
) -> Inference:
    """The mapping, with the keys that rules settle, that stay, and whose tensors are left out."""
    known = [Match(key, key, Confidence.CERTAIN, 1.0, evidence="a rule") for key in settled]
    known += [Match(key, key, Confidence.CERTAIN, 1.0, evidence="allowed") for key in kept]
    return replace(
        inference,
        matches=(*known, *inference.matches),
        dropped=(*apart, *(key for key in inference.dropped if key not in kept)),
        missing=(*apart, *inference.missing),
    )


def _after(
    entries: Sequence[TensorEntry], plan: Plan | None, target: Sequence[TensorEntry]
) -> tuple[list[TensorEntry], list[str]]:
    """The tensors after some rules, and the keys that these gave a place in the target."""
    if plan is None:
        return list(entries), []
    digests = {entry.key: entry.digest for entry in entries}
    kept = {change.new: digests[change.old] for change in plan.changes}
    after = [replace(entry, digest=kept.get(entry.key)) for entry in plan.entries_after]
    places = {(entry.key, entry.shape) for entry in target}
    settled = [e.key for e in plan.tensors if e.rules and (e.key, e.made_of.shape) in places]
    return after, settled


def _that_drop(rules: Iterable[Rule], keys: Iterable[str]) -> Iterator[Rule]:
    """The rules without those that drop none of the keys: a name goes with its tensor."""
    left = [Planned(key, Source(key, "uint8", ())) for key in keys]
    for rule in rules:
        if isinstance(rule, Choice):
            before, left = left, rule.run(left)
            if len(left) == len(before):
                continue
        yield rule


def _doubted(inference: Inference, allowed: Allowed) -> Inference:
    """The mapping, of which no pair is certain by its shape alone if its target may be missing.

    That one tensor of a shape is left on either side proves something only if both must have a
    partner. Names that end alike are evidence enough.
    """
    matches, apart = list[Match](), list[Match]()
    for match in inference.matches:
        ends = [key.rpartition(".")[2] for key in (match.source, match.target)]
        doubtful = match.confidence is Confidence.AMBIGUOUS or (
            match.evidence == ONLY_SHAPE and ends[0] != ends[1]
        )
        if not doubtful or not allowed.missing_key(match.target):
            matches.append(match)
        elif allowed.unexpected_key(match.source):
            apart.append(match)
        else:
            candidates = match.candidates or (match.target, DROPPED)
            doubt = replace(
                match, confidence=Confidence.AMBIGUOUS, margin=0.0, candidates=candidates
            )
            matches.append(doubt)
    return replace(
        inference,
        matches=tuple(matches),
        dropped=(*inference.dropped, *(match.source for match in apart)),
        missing=(*inference.missing, *(match.target for match in apart)),
    )


def _with_values(
    source: OpenedState, target: OpenedState, told: Told
) -> "tuple[list[TensorEntry], list[TensorEntry], tuple[Samples, Samples]]":
    """Both sides with the digests that prove something, and samples of what is not the same."""
    from ckpt.compare.samples import samples_of

    mine, theirs = _with_digests(source, told), _with_digests(target, told)
    same = {(e.key, e.digest) for e in mine} & {(e.key, e.digest) for e in theirs}
    sampled = [
        (entries, samples_of(side, [e for e in entries if (e.key, e.digest) not in same]))
        for side, entries in ((source, mine), (target, theirs))
    ]
    weak = {
        entry.digest
        for entries, samples in sampled
        for entry in entries
        if not entry.numel or (entry.key in samples and not samples[entry.key].tells)
    }
    ones, others = (
        [replace(entry, digest=None) if entry.digest in weak else entry for entry in entries]
        for entries, _ in sampled
    )
    return ones, others, (sampled[0][1], sampled[1][1])


def _with_digests(side: OpenedState, told: Told) -> list[TensorEntry]:
    if not isinstance(side, OpenedFile):
        return list(side.entries)
    digests = hashed(side, side.entries, told=told)
    return [replace(entry, digest=digests[entry.key]) for entry in side.entries]


def _counters(inference: Inference, target: Sequence[TensorEntry]) -> list[Rule]:
    """A rule that fills BatchNorm's counters with zero, if all of them are missing.

    torch does the same on loading (nn.modules.batchnorm, `_load_from_state_dict`).
    """
    missing = {key for key in inference.missing if key.rpartition(".")[2] == _COUNTER}
    if not missing or missing != {e.key for e in target if e.key.rpartition(".")[2] == _COUNTER}:
        return []
    fill = {"fill": rf"\1.{_COUNTER}", "beside": r"^(.*)\.running_var$", "value": 0, "shape": []}
    return read_rules([{**fill, "dtype": "int64"}], name="the counters")
