"""A mapping that was inferred: which key becomes which, how sure that is, and the rules."""

from collections.abc import Iterator
from dataclasses import asdict
from shlex import quote
from typing import Any

from ckpt.infer.find_rules import Found
from ckpt.infer.result import Confidence, Match, Operation
from ckpt.rules.document import rules_document
from ckpt.rules.planned import Rule
from ckpt.rules.substitution import RenameRule
from ckpt.show.look.folding import fold
from ckpt.show.look.words import count, printable

_LISTED = 12  # rules; more of them are in --save-rules


def found_text(found: Found) -> str:
    """Every pair, folded, by how sure it is; what stays open; and the rules."""
    lines = [f"{printable(found.source)} -> {printable(found.target)}"]
    for confidence in Confidence:
        matches = [each for each in found.inference.matches if each.confidence is confidence]
        lines += _matches(confidence, matches)
    lines += map(_operation, found.inference.operations)
    lines += _keys("dropped", found.inference.dropped)
    lines += _keys("missing", found.inference.missing)
    return "\n".join([*lines, "", *rules_lines(found.rules)])


def rules_lines(rules: tuple[Rule, ...]) -> Iterator[str]:
    """The rules as they are typed, where that can be."""
    if not rules:
        yield "  no rule is needed"
        return
    yield f"  {count(len(rules), 'rule')}:"
    yield from (f"    {_option(rule)}" for rule in rules[:_LISTED])
    if len(rules) > _LISTED:
        yield f"    and {len(rules) - _LISTED:,} more; ckpt rename --save-rules FILE  writes them"


def sureness(found: Found) -> str:
    """``8 certain, 200 likely``, of keys and operations together."""
    every: list[Match | Operation] = [*found.inference.matches, *found.inference.operations]
    counts = {c: sum(each.confidence is c for each in every) for c in Confidence}
    return ", ".join(f"{number:,} {c}" for c, number in counts.items() if number) or "nothing"


def found_data(found: Found) -> dict[str, Any]:
    """The same for JSON."""
    inference = found.inference
    return {
        "source": found.source,
        "target": found.target,
        "settled": inference.settled,
        "matches": [asdict(each) for each in inference.matches],
        "operations": [asdict(each) for each in inference.operations],
        "dropped": list(inference.dropped),
        "missing": list(inference.missing),
        "rules": rules_document(found.rules),
    }


def _matches(confidence: Confidence, matches: list[Match]) -> Iterator[str]:
    if confidence is Confidence.AMBIGUOUS:
        for match in matches:
            others = " or ".join(map(printable, match.candidates))
            yield f"  {confidence:<9} {printable(match.source)}  ->  {others}"
        return
    for line in fold([(match.source, match.target) for match in matches]):
        pair = "  ->  ".join(map(printable, line.cells))
        yield f"  {confidence:<9} {pair}" + (f"   {count(line.count, 'key')}" * (line.count > 1))


def _operation(operation: Operation) -> str:
    sources, targets = (
        printable(", ".join(each)) for each in (operation.sources, operation.targets)
    )
    return f"  {operation.confidence:<9} {sources}  ->  {targets}   {operation.verb}"


def _keys(word: str, keys: tuple[str, ...]) -> Iterator[str]:
    for line in fold([(key,) for key in keys]):
        note = f"   {count(line.count, 'key')}" if line.count > 1 else ""
        yield f"  {word:<9} {printable(line.cells[0])}{note}"


def _option(rule: Rule) -> str:
    if isinstance(rule, RenameRule):
        return f"--rule {quote(printable(rule.text))}"
    return printable(rule.text)
