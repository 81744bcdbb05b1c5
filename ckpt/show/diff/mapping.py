"""An inferred mapping: which key becomes which, how sure that is, and the rules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ckpt.infer.questions import Question
from ckpt.infer.result import DROPPED, Confidence, InferredOperation
from ckpt.infer.settled import FoundRules
from ckpt.rules.document import rules_document, typed
from ckpt.rules.planned import Rule
from ckpt.show.look.fields import fields
from ckpt.show.look.folding import fold
from ckpt.show.look.words import count, printable

_LISTED = 12  # rules; --save-rules writes all
_NAMED = 4  # keys of one operation


def found_text(found: FoundRules) -> str:
    """Every pair, folded and sorted by confidence; what is left over; and the rules."""
    lines = [f"{printable(found.source)} -> {printable(found.target)}"]
    for confidence in Confidence:
        if confidence is not Confidence.AMBIGUOUS:
            matches = [m for m in found.inference.matches if m.confidence is confidence]
            lines += _folded(confidence, [(match.source, match.target) for match in matches])
    for question in found.questions:
        lines += question_lines(question)
    lines += map(_operation, found.inference.operations)
    lines += _folded("dropped", [(key,) for key in found.inference.dropped])
    lines += _folded("missing", [(key,) for key in found.inference.missing])
    return "\n".join([*lines, "", *rules_lines(found)])


def rules_lines(found: FoundRules) -> Iterator[str]:
    """The rules, as they are typed if possible."""
    rules = found.rules
    if not rules:
        has_a_place = found.inference.matches or found.inference.operations
        yield "  no rules needed" if has_a_place else "  no rules: nothing has a place in the other"
        return
    yield f"  {count(len(rules), 'rule')}:"
    yield from (f"    {printable(typed(rule) or _in_a_file(rule))}" for rule in rules[:_LISTED])
    if len(rules) > _LISTED:
        yield f"    and {len(rules) - _LISTED:,} more; ckpt rename --save-rules FILE  writes them"


def _in_a_file(rule: Rule) -> str:
    return f"{rule.text}   (in a rule file; --save-rules FILE  writes it)"


def sureness(found: FoundRules) -> str:
    """``8 certain, 200 likely``, keys and operations together."""
    counts = Counter(match.confidence for match in found.inference.matches)
    counts.update(operation.confidence for operation in found.inference.operations)
    return ", ".join(f"{counts[c]:,} {c}" for c in Confidence if counts[c]) or "nothing"


def found_data(found: FoundRules) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(found, "source", "target", "settled=inference.settled"),
        **asdict(found.inference),
        "questions": [question_data(question) for question in found.questions],
        "rules": rules_document(found.rules),
    }


def question_lines(question: Question) -> Iterator[str]:
    """The first key with its candidates, how many keys go with it, the guess and its rule."""
    match, others = question.first, len(question.matches) - 1
    targets = " or ".join(printable(key) or "nothing (dropped)" for key in match.candidates)
    together = f"   and {count(others, 'key')} with it" if others else ""
    yield f"  {Confidence.AMBIGUOUS:<9} {printable(match.source)}  ->  {targets}{together}"
    yield f"            {printable(_reason(match.evidence))}; best guess: {printable(match.target)}"
    if question.rule is not None:
        yield f"            {printable(typed(question.rule) or '')}  takes it"


def _reason(evidence: str) -> str:
    """Why a key is ambiguous, in words."""
    return {"nothing": "names do not decide", "": "nothing decides"}.get(evidence, evidence)


def asked_lines(question: Question, left: int) -> Iterator[str]:
    """A question with its numbered candidates, for a person who chooses one.

    Args:
        question: The question.
        left: How many there are, with this one.
    """
    match, others = question.first, len(question.matches) - 1
    together = f" and {count(others, 'key')} with it" if others else ""
    more = f"   ({count(left, 'question')} left)" if left > 1 else ""
    yield f"{printable(match.source)}{together}: {printable(_reason(match.evidence))}{more}"
    for number, key in enumerate(match.candidates, start=1):
        guess = "   (best guess)" if key == match.target else ""
        yield f"  {number}  {printable(key) or 'nothing: drop it'}{guess}"


def question_data(question: Question) -> dict[str, Any]:
    """A question for JSON."""
    match = question.first
    return {
        "sources": [match.source for match in question.matches],
        "guesses": [match.target for match in question.matches],
        "candidates": [target for target in match.candidates if target != DROPPED],
        "may_be_dropped": DROPPED in match.candidates,
        **fields(match, "evidence", "margin"),
        "option": None if question.rule is None else typed(question.rule),
    }


def _operation(operation: InferredOperation) -> str:
    sources, targets = (_some(keys) for keys in (operation.sources, operation.targets))
    return f"  {operation.confidence:<9} {sources}  ->  {targets}   {operation.verb}"


def _some(keys: Sequence[str]) -> str:
    """The keys, or the first and the last of many, as those of all experts of a layer."""
    if len(keys) <= _NAMED:
        return printable(", ".join(keys))
    return printable(f"{keys[0]}, … {keys[-1]} ({len(keys):,} keys)")


def _folded(word: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield from (f"  {word:<9} {line.text}{line.note}" for line in fold(rows))
