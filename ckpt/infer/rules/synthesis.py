"""The mapping as few readable rules, proved by applying them.

Drops come first, then operations, then renames. Law: the rules, applied to the source by
`plan_tensors`, give every tensor its key and its elements as the inference has them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt.errors import CkptError, RuleError
from ckpt.infer.result import Inference
from ckpt.infer.rules.contexts import Keys, Span, rules_for
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.operating import tables_for
from ckpt.infer.rules.plain import plain_rules
from ckpt.infer.rules.rewrites import HOPES, Cutter, Forms, Piece, Rewrite, escaped
from ckpt.infer.words import template_of
from ckpt.rules.at_once import AtOnce
from ckpt.rules.choice import drop
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import sources_of
from ckpt.rules.key_map import KeyMap
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip
from ckpt.rules.substitution import RenameRule, parse_rule
from ckpt.tensors import TensorEntry

_MOST_CUTS = 1_200  # keys that are cut into pieces, each time anew
_SAMPLES = 3  # keys of one pair of templates that are looked at first
_MORE = 30  # wrong keys that become samples

Pairs = list[tuple[str, str]]


def synthesise(
    source: Sequence[TensorEntry], target: Sequence[TensorEntry], inference: Inference
) -> list[Rule]:
    """The rules of an inference; the guesses of what is ambiguous are taken as they are.

    Args:
        source: That the inference was made of.
        target: Likewise.
        inference: What is wanted.
    """
    keys = [entry.key for entry in source]
    kept = [key for key in keys if key not in {*inference.dropped}]
    first: list[Rule] = [drop(each) for each in patterns_for(inference.dropped, kept)]
    shapes = {entry.key: entry.shape for entry in target}
    tables = tables_for(inference, kept, shapes)
    if tables:
        first += read_rules(tables, name="the operations")
    pairs = _renames(inference)
    guesses = sorted(_guesses(pairs), key=count_rules)
    for renames in (*guesses, [_exact(pairs)]):
        rules = [*first, *renames]
        if proves(source, rules, inference):
            return rules
    raise RuleError("no rules express this mapping")


def count_rules(rules: Sequence[Rule]) -> int:
    """How many there are; each of a group, and each line of a map, counts."""
    return sum(
        len(rule.rules)
        if isinstance(rule, AtOnce)
        else len(rule.pairs)
        if isinstance(rule, KeyMap)
        else 1
        for rule in rules
    )


def proves(source: Sequence[TensorEntry], rules: Sequence[Rule], inference: Inference) -> bool:
    """Whether the rules do what the inference says, no more and no less."""
    try:
        plan = plan_tensors(source, rules)
    except CkptError:  # rules that do not run are no rules for it
        return False
    wanted = {match.target: [match.source] for match in inference.matches}
    for operation in inference.operations:
        wanted.update({key: [*operation.sources] for key in operation.targets})
    made = {each.key: [*sources_of(each.made_of)] for each in plan.tensors}
    return made == wanted


def _renames(inference: Inference) -> Pairs:
    """What the renames have to do, after the operations: old and new key of every tensor."""
    pairs: Pairs = []
    for old, news in inference.renames.items():
        pairs += [(old, news[0])] if len(news) == 1 else [(new, new) for new in news]
    for operation in inference.operations:
        if operation.verb in ("transpose", "reshape"):
            pairs.append((operation.sources[0], operation.targets[0]))
        else:
            pairs += ((new, new) for new in operation.targets)
    return pairs


@dataclass(slots=True)
class _Effort:
    """What the search may still cost, in keys that are cut, and what it worked out so far."""

    forms: Forms
    left: int = _MOST_CUTS


def _guesses(pairs: Pairs) -> Iterator[list[Rule]]:
    """Lists of rules that may rename just so."""
    if any(map(_is_odd, pairs)):
        return
    yield from plain_rules(pairs)
    forms: Forms = {}
    for start, left in _starts(pairs):
        yield from ([*start, *rest] for rest in _rest(left, _Effort(forms)))


def _is_odd(pair: tuple[str, str]) -> bool:
    """Whether a key holds what no rule can, an arrow or a brace, or ends in a dot."""
    try:
        return "" in pair[0].split(".") or _whole(*pair).apply(pair[0]) != pair[1]
    except RuleError:
        return True


def _starts(pairs: Pairs) -> Iterator[tuple[list[Rule], Pairs]]:
    """A prefix cut off or put before all, or neither; with what is left to do."""
    yield [], pairs
    heads = {old.partition(".")[0] for old, _ in pairs}
    for head in heads if len(heads) <= 2 else ():
        prefix = f"{head}."
        left = [(old.removeprefix(prefix), new) for old, new in pairs]
        if len({old for old, _ in left}) == len(left) and not all(
            new.startswith(prefix) for _, new in pairs
        ):
            yield [Strip(prefix)], left
    heads = {new.partition(".")[0] for _, new in pairs}
    if len(heads) == 1:
        prefix = f"{heads.pop()}."
        if not any(old.startswith(prefix) for old, _ in pairs):
            yield [Add(prefix)], [(prefix + old, new) for old, new in pairs]


def _rest(pairs: Pairs, effort: _Effort) -> Iterator[list[Rule]]:
    if all(old == new for old, new in pairs):
        yield []
        return
    rules = _by_pieces(pairs, effort)
    if _renamed_in_turn(pairs, rules):
        yield [*rules]
    yield [AtOnce(tuple(rules))]


def _by_pieces(pairs: Pairs, effort: _Effort) -> list[RenameRule]:
    """Rules for the pieces in which the keys differ, made of samples until all keys are right.

    Keys that stay wrong get a rule each, before the others.
    """
    samples = _samples(pairs)
    while True:
        cutter = Cutter(samples, effort.forms)
        rules = _rules_of(samples, cutter, HOPES[0], effort)
        if effort.left > 0:
            rules = min(rules, _rules_of(samples, cutter, HOPES[1], effort), key=len)
        group = AtOnce(tuple(rules)) if rules else None
        wrong = [pair for pair in pairs if not _is_right(group, *pair)]
        known = {*samples}
        more = [pair for pair in wrong if pair not in known]
        if not more or effort.left <= 0:
            return [*(_whole(*pair) for pair in wrong), *rules]
        samples += dict.fromkeys((*_samples(more), *more[:: len(more) // _MORE + 1]))


def _is_right(group: AtOnce | None, old: str, new: str) -> bool:
    try:
        return (group.apply(old) if group else old) == new
    except RuleError:
        return False


def _samples(pairs: Pairs) -> Pairs:
    """A few keys of each two templates, from the first to the last."""
    groups: dict[tuple[str, str], Pairs] = {}
    for old, new in pairs:
        groups.setdefault((template_of(old), template_of(new)), []).append((old, new))
    found: Pairs = []
    for group in groups.values():
        places = {round(n * (len(group) - 1) / (_SAMPLES - 1)) for n in range(_SAMPLES)}
        found += [group[place] for place in sorted(places)]
    return found


def _rules_of(
    pairs: Pairs, cutter: Cutter, hopes: Sequence[float], effort: _Effort
) -> list[RenameRule]:
    """A rule or several for each replacement; whole keys where none can be found.

    A replacement that no rule expresses is given up, and the keys are cut anew.
    """
    banned: set[Rewrite] = set()
    while True:
        effort.left -= len(pairs)
        rules, failed = _expressed(pairs, cutter.cut(hopes, banned))
        if not failed:
            return rules
        if effort.left <= 0:
            break
        banned |= failed.keys()
    places = dict.fromkeys(place for group in failed.values() for place in group)
    return [*(_whole(*pairs[place]) for place in places), *rules]


def _expressed(
    pairs: Pairs, cuts: Sequence[Sequence[Piece]]
) -> tuple[list[RenameRule], dict[Rewrite, list[int]]]:
    """The rules of the replacements, and those that have none with the keys that use them."""
    olds = [old for old, _ in pairs]
    spans: dict[Rewrite, list[Span]] = {}
    for place, (old, pieces) in enumerate(zip(olds, cuts, strict=True)):
        for piece in pieces:
            made = _made(piece.rewrite, old[piece.start : piece.end])
            span = Span(place, piece.start, piece.end, made)
            spans.setdefault(piece.rewrite, []).append(span)
    # The particular before the general, which may then match there too.
    in_order = sorted(spans, key=lambda each: (each.old.count("("), -len(each.old)))
    rank = {rewrite: place for place, rewrite in enumerate(in_order)}
    keys = Keys(olds, [[(p.start, p.end, rank[p.rewrite]) for p in pieces] for pieces in cuts])
    rules: list[RenameRule] = []
    failed: dict[Rewrite, list[int]] = {}
    for rewrite in in_order:
        found = rules_for(rewrite, rank[rewrite], spans[rewrite], keys)
        rules += found or ()
        if found is None:
            failed[rewrite] = [span.key for span in spans[rewrite]]
    return rules, failed


def _made(rewrite: Rewrite, old: str) -> str:
    return parse_rule(f"^{rewrite.old}$->{rewrite.new}").apply(old)


def _whole(old: str, new: str) -> RenameRule:
    return parse_rule(f"^{escaped(old)}$->{new}")


def _renamed_in_turn(pairs: Pairs, rules: Sequence[RenameRule]) -> bool:
    """Whether the rules do the same one after the other, as `--rule` has them."""
    for old, new in pairs:
        key = old
        try:
            for rule in rules:
                key = rule.apply(key)
        except RuleError:
            return False
        if key != new:
            return False
    return True


def _exact(pairs: Pairs) -> Rule:
    """All keys one by one."""
    return KeyMap("map", dict(pairs))
