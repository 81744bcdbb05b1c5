"""Express a mapping as few readable rules, and prove them by applying them.

Drops come first, then operations, then renames. Law: the rules, applied to the source by
`plan_tensors`, give every tensor its key and its elements as the inference has them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain

from ckpt.errors import CkptError, RuleError
from ckpt.infer.result import Inference
from ckpt.infer.rules.contexts import Place, Search
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.operating import tables_for
from ckpt.infer.rules.plain import plain_rules
from ckpt.infer.rules.rewrites import HOPES, Cutter, Forms, Piece, Rewrite, escaped
from ckpt.infer.rules.stacking import renames_of
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

_MOST_CUTS = 1_200  # keys that are cut into pieces, counted again in every round
_SAMPLES = 3  # keys of one pair of templates that are tried first
_MORE = 30  # wrong keys that become samples
_PLAIN = re.compile(r"[\w.]{1,1000}", re.ASCII)  # nothing in it means anything in a rule

Pairs = list[tuple[str, str]]


def synthesise(
    source: Sequence[TensorEntry], target: Sequence[TensorEntry], inference: Inference
) -> list[Rule]:
    """The rules of an inference, which include its guesses for ambiguous keys.

    None if nothing has a place in the target: rules cannot drop all tensors.

    Args:
        source: The source of the inference.
        target: The target of the inference.
        inference: The mapping.

    Raises:
        RuleError: No rules express the mapping.
    """
    if not inference.matches and not inference.operations:
        return []
    keys = [entry.key for entry in source]
    kept = [key for key in keys if key not in {*inference.dropped}]
    first: list[Rule] = [drop(pattern) for pattern in patterns_for(inference.dropped, kept)]
    shapes = {entry.key: entry.shape for entry in target}
    tables = tables_for(inference, kept, shapes)
    if tables:
        first += read_rules(tables, name="the operations")
    pairs = _renames(inference)
    one_by_one: list[Rule] = [KeyMap("map", dict(pairs))]
    for renames in chain(_shortest_first(_guesses(pairs)), [one_by_one]):
        rules = [*first, *renames]
        if proves(source, rules, inference):
            return rules
    raise RuleError("no rules express this mapping")


def count_rules(rules: Sequence[Rule]) -> int:
    """How many rules there are; every rule of a group and every line of a map counts."""
    return sum(
        len(rule.rules)
        if isinstance(rule, AtOnce)
        else len(rule.pairs)
        if isinstance(rule, KeyMap)
        else 1
        for rule in rules
    )


def proves(source: Sequence[TensorEntry], rules: Sequence[Rule], inference: Inference) -> bool:
    """Whether the rules do exactly what the inference says."""
    try:
        plan = plan_tensors(source, rules)
    except CkptError:  # the rules do not run
        return False
    wanted = {match.target: [match.source] for match in inference.matches}
    for operation in inference.operations:
        wanted.update({key: [*operation.sources] for key in operation.targets})
    made = {tensor.key: [*sources_of(tensor.made_of)] for tensor in plan.tensors}
    return made == wanted


def _renames(inference: Inference) -> Pairs:
    """The old and new key of every tensor, after the operations."""
    pairs: Pairs = []
    for old, news in inference.renames.items():
        pairs += [(old, news[0])] if len(news) == 1 else [(new, new) for new in news]
    for operation in inference.operations:
        if operation.verb in ("transpose", "permute", "reshape"):
            pairs.append((operation.sources[0], operation.targets[0]))
        elif operation.verb in ("stack", "unstack"):
            pairs += renames_of(operation)
        else:
            pairs += ((new, new) for new in operation.targets)
    return pairs


@dataclass(slots=True)
class _Effort:
    """The cache of the search, and how many keys it may still cut."""

    forms: Forms
    left: int = _MOST_CUTS


def _guesses(pairs: Pairs) -> Iterator[list[Rule]]:
    """Lists of rules that may rename the pairs."""
    if any(map(_is_odd, pairs)):
        return
    yield from plain_rules(pairs)
    forms: Forms = {}
    for start, left in _starts(pairs):
        yield from ([*start, *rest] for rest in _rest(left, _Effort(forms)))


def _shortest_first(guesses: Iterable[list[Rule]]) -> Iterator[list[Rule]]:
    """The guesses by their number of rules; none is made after one of a single rule that proves."""
    longer = []
    for guess in guesses:
        if count_rules(guess) > 1:
            longer.append(guess)
        else:
            yield guess
    yield from sorted(longer, key=count_rules)


def _is_odd(pair: tuple[str, str]) -> bool:
    """Whether no rule can express a pair: a key has an arrow, a brace or an empty part."""
    if "" in pair[0].split("."):
        return True
    if all(map(_PLAIN.fullmatch, pair)):  # compiling a pattern for each of many keys takes long
        return False
    try:
        return _whole(*pair).apply(pair[0]) != pair[1]
    except RuleError:
        return True


def _starts(pairs: Pairs) -> Iterator[tuple[list[Rule], Pairs]]:
    """Rules for a prefix to strip or add, or none, and the pairs that remain after them."""
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
    if all(_applied(rules, old) == new for old, new in pairs):  # as `--rule` applies them
        yield [*rules]
    yield [AtOnce(tuple(rules))]


def _by_pieces(pairs: Pairs, effort: _Effort) -> list[RenameRule]:
    """Rules for the pieces in which the keys differ, from samples until all keys are right.

    Keys that stay wrong get rules of their own, before the others.
    """
    samples = _samples(pairs)
    while True:
        cutter = Cutter(samples, effort.forms)
        rules = _rules_of(samples, cutter, HOPES[0], effort)
        if effort.left > 0:
            rules = min(rules, _rules_of(samples, cutter, HOPES[1], effort), key=len)
        group = [AtOnce(tuple(rules))]
        wrong = [(old, new) for old, new in pairs if _applied(group, old) != new]
        known = {*samples}
        more = [pair for pair in wrong if pair not in known]
        if not more or effort.left <= 0:
            return [*(_whole(*pair) for pair in wrong), *rules]
        samples += dict.fromkeys((*_samples(more), *more[:: len(more) // _MORE + 1]))


def _samples(pairs: Pairs) -> Pairs:
    """A few pairs of every two templates, from the first to the last."""
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
    """Rules for the replacements, or for whole keys if none are found.

    If no rule expresses a replacement, the keys are cut again without it.
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
    """The rules of the replacements, and the keys of those that have none."""
    olds = [old for old, _ in pairs]
    places_of: dict[Rewrite, list[Place]] = {}
    for number, pieces in enumerate(cuts):
        for piece in pieces:
            wanted = Place(number, piece.start, piece.end)
            places_of.setdefault(piece.rewrite, []).append(wanted)
    # Specific rules go before general ones, which may then match at the same place.
    in_order = sorted(places_of, key=lambda rewrite: (rewrite.old.count("("), -len(rewrite.old)))
    rank = {rewrite: place for place, rewrite in enumerate(in_order)}
    taken = [[(piece.start, piece.end, rank[piece.rewrite]) for piece in cut] for cut in cuts]
    rules: list[RenameRule] = []
    failed: dict[Rewrite, list[int]] = {}
    for rewrite in in_order:
        found = Search(rewrite, places_of[rewrite], olds, taken, rank[rewrite]).rules()
        rules += found or ()
        if found is None:
            failed[rewrite] = [place.key for place in places_of[rewrite]]
    return rules, failed


def _whole(old: str, new: str) -> RenameRule:
    return parse_rule(f"^{escaped(old)}$->{new}")


def _applied(rules: Sequence[RenameRule | AtOnce], key: str) -> str | None:
    """A key after some rules, one after the other; None if one of them does not run."""
    try:
        return reduce(lambda name, rule: rule.apply(name), rules, key)
    except RuleError:
        return None
