"""What an inference leaves open, as few questions, each with a rule that answers it.

One doubt about two modules concerns all their tensors, and often all blocks that repeat: these
are one question. Law: every ambiguous match is in exactly one question; a rule that is offered
was tried, and with it all matches of the question are as guessed and none is ambiguous.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ckpt.errors import CkptError
from ckpt.infer.result import DROPPED, Confidence, Inference, InferredOperation, Match
from ckpt.infer.rules.cutting import escaped
from ckpt.infer.rules.renaming import rename_rules
from ckpt.infer.rules.synthesis import synthesise
from ckpt.infer.words import template_of
from ckpt.rules.choice import drop
from ckpt.rules.document import typed
from ckpt.rules.key_map import KeyMap
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

_MOST_TRIED = 3  # questions; each try takes an inference

_NUMBERED = re.compile(r"(.*?)(\d+)")

Try = Callable[[Rule], Inference]


@dataclass(frozen=True, slots=True)
class Question:
    """One doubt.

    Attributes:
        matches: The ambiguous matches that one answer settles, with the best guesses.
        rule: Confirms the guesses; None if no single rule was found to do so.
    """

    matches: tuple[Match, ...]
    rule: Rule | None

    @property
    def first(self) -> Match:
        """The match that stands for all."""
        return self.matches[0]


def questions_of(
    inference: Inference,
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
    infer_with: Try,
) -> tuple[Question, ...]:
    """The questions of an inference, in the order of their first keys.

    Args:
        inference: The mapping, with guesses.
        source: Its source.
        target: Its target.
        infer_with: Infers the same with one rule before.
    """
    ambiguous = [m for m in inference.matches if m.confidence is Confidence.AMBIGUOUS]
    groups = [ambiguous] if inference.copies else _groups(ambiguous)
    found = []
    for number, matches in enumerate(groups):
        rules = _rules_for(matches, inference, source, target) if number < _MOST_TRIED else ()
        settling = (rule for rule in rules if _settles(rule, matches, source, infer_with))
        found.append(Question(tuple(matches), next(settling, None)))
    return tuple(found)


def answer(question: Question, target: str) -> Rule:
    """The rule that gives the first key of a question this target, or drops it for `DROPPED`.

    It names the modules without their numbers if it can, so that it holds for all of them.
    """
    match = question.first
    if target == match.target and question.rule is not None:
        return question.rule
    stem, _ = _stem(match)
    if target == DROPPED:
        return drop(_pattern([stem]))
    end = match.source[len(stem) :]
    pairs = [(match.source, target)]
    if target.endswith(end):
        pairs.insert(0, (stem, target.removesuffix(end)))
    for pair in pairs:
        for rules in rename_rules([pair]):
            if len(rules) == 1 and typed(rules[0]) is not None:
                return rules[0]
    return KeyMap("the answer", {match.source: target})


def doubtful_operations(inference: Inference) -> list[tuple[InferredOperation, ...]]:
    """The ambiguous operations; those of repeated blocks are one doubt, and so are their leaves."""
    found: dict[object, list[InferredOperation]] = {}
    for one in inference.operations:
        if one.confidence is Confidence.AMBIGUOUS:
            modules = (template_of(key.rpartition(".")[0]) for key in (*one.sources, *one.targets))
            found.setdefault((one.verb, one.evidence, *modules), []).append(one)
    return [*map(tuple, found.values())]


def rules_of(
    operations: Sequence[InferredOperation],
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
) -> list[Rule]:
    """The rules of some operations, where all tensors that these do not make have their places.

    None if there are none.

    Args:
        operations: They do not depend on each other.
        source: The tensors that they need.
        target: All tensors of the target.
    """
    used = {key for one in operations for key in one.sources}
    made = {key for one in operations for key in one.targets}
    there = [entry for entry in target if entry.key not in made | used]
    stay = tuple(Match(entry.key, entry.key, Confidence.CERTAIN, 1.0) for entry in there)
    before = [*(entry for entry in source if entry.key in used), *there]
    try:
        return synthesise(before, target, Inference(stay, tuple(operations), (), ()))
    except CkptError:
        return []


def _groups(ambiguous: Sequence[Match]) -> list[list[Match]]:
    """The matches whose modules, apart from their numbers, have a candidate in common."""
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while parents.setdefault(node, node) != node:
            node = parents[node]
        return node

    stems = [_stem(match) for match in ambiguous]
    for match, (source, targets) in zip(ambiguous, stems, strict=True):
        mine = root((0, f"{match.evidence} {template_of(source)}"))
        for target in targets:
            parents[root((1, f"{match.evidence} {template_of(target)}"))] = mine
    groups: dict[tuple[int, str], list[Match]] = {}
    for match, (source, _) in zip(ambiguous, stems, strict=True):
        groups.setdefault(root((0, f"{match.evidence} {template_of(source)}")), []).append(match)
    return [*groups.values()]


def _stem(match: Match) -> tuple[str, list[str]]:
    """The modules about which a match is in doubt: its keys without the end that they share."""
    source = match.source.split(".")
    targets = [target.split(".") for target in match.candidates if target != DROPPED]
    while (
        min(map(len, (source, *targets))) > 1
        and not source[-1].isdecimal()
        and all(target[-1] == source[-1] for target in targets)
        and len({tuple(target[:-1]) for target in targets}) == len(targets)
    ):
        source, targets = source[:-1], [target[:-1] for target in targets]
    return ".".join(source), [".".join(target) for target in targets]


def _rules_for(
    matches: Sequence[Match],
    inference: Inference,
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
) -> Iterator[Rule]:
    """Rules that may confirm the guesses: drop what is left over, or rename what is not."""
    if inference.copies:
        yield drop(_pattern(inference.copies[1:]))
    if surplus := _surplus(matches, inference):
        yield drop(_pattern(surplus))
    modules: dict[str, list[Match]] = {}
    alike: dict[str, list[Match]] = {}
    for match in matches:
        stem, _ = _stem(match)
        modules.setdefault(stem, []).append(match)
        alike.setdefault(template_of(stem), []).append(match)
    for some in (next(iter(modules.values())), *alike.values(), matches):
        olds, news = {m.source for m in some}, {m.target for m in some}
        try:
            rules = synthesise(
                [entry for entry in source if entry.key in olds],
                [entry for entry in target if entry.key in news],
                Inference(tuple(some), (), (), ()),
            )
        except CkptError:
            continue
        if len(rules) == 1 and typed(rules[0]) is not None:
            yield rules[0]


def _surplus(matches: Sequence[Match], inference: Inference) -> list[str]:
    """The modules that are like those of the matches, and have no place in the target."""
    stems = {template_of(stem): stem.count(".") + 1 for stem, _ in map(_stem, matches)}
    found: dict[str, None] = {}
    for key in inference.dropped:
        for template, depth in stems.items():
            name = ".".join(key.split(".")[:depth])
            if template_of(name) == template:
                found[name] = None
    return [*found]


def _pattern(names: Sequence[str]) -> str:
    """A pattern that matches all keys of some modules, and no others."""
    rows = [_NUMBERED.fullmatch(name) for name in names]
    before = {row[1] for row in rows if row}
    if len(before) == 1 and all(rows):
        numbers = "|".join(row[2] for row in rows if row)
        return f"^{escaped(before.pop())}({numbers})([.]|$)"
    return f"^({'|'.join(map(escaped, names))})([.]|$)"


def _settles(
    rule: Rule, matches: Sequence[Match], source: Sequence[TensorEntry], infer_with: Try
) -> bool:
    """Whether a rule makes every guess of a question sure."""
    try:
        plan = plan_tensors(source, [rule])
        found = infer_with(rule)
    except CkptError:
        return False
    new_of = {change.old: change.new for change in plan.changes}
    target_of = {
        match.source: match.target
        for match in found.matches
        if match.confidence is not Confidence.AMBIGUOUS
    }
    return all(target_of.get(new_of.get(m.source, m.source)) == m.target for m in matches)
