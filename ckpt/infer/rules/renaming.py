"""Rules that rename pairs of keys, from the words in which they differ.

They are guesses: the caller proves them by applying them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate, chain

from ckpt.errors import RuleError
from ckpt.infer.rules.contexts import Place, contexts_of
from ckpt.infer.rules.cutting import Cutter, Piece, Rewrite, escaped, words
from ckpt.infer.rules.folding import Folded, Pairs, folded
from ckpt.infer.rules.plain import common, plain_rules
from ckpt.rules.at_once import AtOnce
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip
from ckpt.rules.substitution import RenameRule, parse_rule

_SAMPLES = 3  # keys of one folded pair that are tried first
_MORE = 30  # wrong keys that become samples
_ROUNDS = 8  # in which replacements without a context are given up, or wrong keys become samples
_MANY = 20  # rules; with fewer no other start and no finer words are tried
_MOST_WHOLE = 20  # keys that get rules of their own
_MOST_FINE = 150  # folded pairs of which finer words are tried
_MOST_REWRITES = 60  # different replacements; more follow no pattern
_ODD = re.compile(r"[-=]>|<")  # means something on both sides of a rule
_ODD_NEW = re.compile(r"[\\{}]")  # and on the right side
_SEPARATED = re.compile(r"([\W_])([a-zA-Z]+)")


def rename_rules(pairs: Pairs) -> Iterator[list[Rule]]:
    """Lists of rules that may rename the pairs, the plainest first."""
    if any(_is_odd(*pair) for pair in pairs):
        return
    least = _MANY + 1
    for start, left in _starts(pairs):
        yield from ([*start, *rules] for rules in plain_rules(left))
        groups = folded(left)
        for fine in (False, True) if _changes_separators(groups) else (False,):
            rules = _Synthesis(groups, fine=fine).rules() if least > _MANY else None
            if rules is None:
                continue
            least = min(least, len(rules))
            if _renames(rules, left):  # one after the other, as `--rule` applies them
                yield [*start, *rules]
            else:
                yield [*start, AtOnce(tuple(rules))]


def _is_odd(old: str, new: str) -> bool:
    """Whether no rule can express a pair."""
    return bool(_ODD.search(f"{old} {new}") or _ODD_NEW.search(new) or "" in old.split("."))


def _starts(pairs: Pairs) -> Iterator[tuple[list[Rule], Pairs]]:
    """Rules for a prefix to strip or add, or none, and the pairs that remain after them."""
    changed = [pair for pair in pairs if pair[0] != pair[1]]
    if not changed:
        yield [], pairs
        return
    old, new = map(_common_module, zip(*changed, strict=True))
    if old and not new:
        left = [(key.removeprefix(f"{old}."), new) for key, new in pairs]
        if len({key for key, _ in left}) == len(left):
            yield [Strip(f"{old}.")], left
            return
    yield [], pairs
    if new and not old:
        head = f"{new.partition('.')[0]}."
        if not any(key.startswith(head) for key, _ in pairs):
            yield [Add(head)], [(head + key, new) for key, new in pairs]
    elif not old:
        heads = Counter(key.partition(".")[0] for key, _ in pairs)
        head, count = heads.most_common(1)[0]
        prefix = f"{head}."
        left = [(key.removeprefix(prefix), new) for key, new in pairs]
        if 2 * count > len(pairs) and len({key for key, _ in left}) == len(left):
            yield [Strip(prefix)], left


def _common_module(keys: Sequence[str]) -> str:
    """The module that holds all keys; "" for none."""
    first, last = min(keys), max(keys)
    return first[: common(first, last)].rpartition(".")[0]


def _changes_separators(groups: Sequence[Folded]) -> bool:
    """Whether in most keys a word has a dot before it on one side, something else on the other."""
    count = 0
    for group in groups:
        old, new = ({*_SEPARATED.findall(side)} for side in (group.old, group.new))
        count += any((sep == ".") != (other == ".") and word == same
                     for sep, word in old - new for other, same in new - old)  # fmt: skip
    return len(groups) < 2 * count < 2 * _MOST_FINE


def _renames(rules: Sequence[RenameRule | AtOnce], pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether the rules, one after the other, give every old key its new one."""
    return all(_applied(rules, old) == new for old, new in pairs)


def _applied(rules: Sequence[RenameRule | AtOnce], key: str) -> str | None:
    """A key after some rules; None if one of them does not run."""
    try:
        return reduce(lambda name, rule: rule.apply(name), rules, key)
    except RuleError:
        return None


class _Synthesis:
    """The search for rules that rename all folded pairs at once.

    Args:
        groups: The pairs.
        fine: Where keys may be cut, as in `words`.
    """

    def __init__(self, groups: Sequence[Folded], *, fine: bool) -> None:
        self._groups, self._fine = groups, fine
        self._cutter = Cutter(groups, fine=fine)
        self._samples = [_some(group.pairs) for group in groups]

    def rules(self) -> list[RenameRule] | None:
        """The rules; None if too many keys need rules of their own."""
        for _ in range(_ROUNDS):
            rules = self._rules_of_samples()
            if rules is None:
                return None
            group = [AtOnce(tuple(rules))]
            wrong = [
                [pair for pair in it.pairs if _applied(group, pair[0]) != pair[1]]
                for it in self._groups
            ]
            if not self._learn(wrong):
                break
        return _with_wholes([*chain(*wrong)], rules or ())

    def _learn(self, wrong: Sequence[Pairs]) -> bool:
        """Add pairs to the samples; whether any was not among them."""
        sizes = [*map(len, self._samples)]
        for pairs, samples in zip(wrong, self._samples, strict=True):
            known = {*samples}
            new = [pair for pair in pairs if pair not in known]
            samples += new[:: len(new) // _MORE + 1]
        return sizes != [*map(len, self._samples)]

    def _rules_of_samples(self) -> list[RenameRule] | None:
        """Rules for the replacements, or for whole keys if no contexts are found; None for many.

        If no rule expresses a replacement, the keys are cut again without it.
        """
        for _ in range(_ROUNDS):
            cuts = self._cutter.cut()
            if len({piece.rewrite for cut in cuts for piece in cut}) > _MOST_REWRITES:
                return None
            rules, failed = self._expressed(cuts)
            if not self._cutter.ban(failed):
                break
        wholes = {number: None for numbers in failed.values() for number in numbers}
        return _with_wholes([pair for n in wholes for pair in self._groups[n].pairs], rules)

    def _expressed(
        self, cuts: Sequence[Sequence[Piece]]
    ) -> tuple[list[RenameRule], dict[Rewrite, list[int]]]:
        """The rules of the replacements, and those that have none."""
        # Specific rules go before general ones, which may then match at the same place.
        in_order = sorted(
            {piece.rewrite for pieces in cuts for piece in pieces},
            key=lambda it: (
                *(-len(words(it.old, fine=self._fine)), it.old.count(r"\d"), -len(it.old)),
                *(it.old, it.new),
            ),
        )
        rank = {rewrite: place for place, rewrite in enumerate(in_order)}
        keys: list[str] = []
        taken: list[list[tuple[int, int, int]]] = []
        places: dict[Rewrite, list[Place]] = {rewrite: [] for rewrite in in_order}
        for samples, pieces in zip(self._samples, cuts, strict=True):
            for old, _ in samples:
                spans = [self._span(old, piece) for piece in pieces]
                for piece, span in zip(pieces, spans, strict=True):
                    places[piece.rewrite].append(Place(len(keys), *span))
                taken.append(
                    [(*span, rank[it.rewrite]) for it, span in zip(pieces, spans, strict=True)]
                )
                keys.append(old)
        rules: list[RenameRule] = []
        failed: dict[Rewrite, list[int]] = {}
        for rewrite in in_order:
            found = contexts_of(
                rewrite, places[rewrite], keys, taken, rank[rewrite], fine=self._fine
            )
            for before, behind in found or ():
                rules.append(parse_rule(f"{before}{rewrite.old}{behind}->{rewrite.new}"))
            if found is None:
                failed[rewrite] = [
                    n for n, cut in enumerate(cuts) if any(p.rewrite == rewrite for p in cut)
                ]
        return rules, failed

    def _span(self, key: str, piece: Piece) -> tuple[int, int]:
        """Where a piece is in a key."""
        joint = 0 if self._fine else 1
        sizes = [len(word) + joint for word in words(key, fine=self._fine)]
        starts = [*accumulate(sizes, initial=0)]
        return starts[piece.first], starts[piece.end] - joint


def _some(pairs: Pairs) -> list[tuple[str, str]]:
    """A few of the pairs, from the first to the last."""
    places = {round(n * (len(pairs) - 1) / (_SAMPLES - 1)) for n in range(_SAMPLES)}
    return [pairs[place] for place in sorted(places)]


def _with_wholes(pairs: Pairs, rules: Sequence[RenameRule]) -> list[RenameRule] | None:
    """The rules behind those for some whole keys; None if there are too many of these."""
    if len(pairs) > _MOST_WHOLE:
        return None
    return [*(parse_rule(f"^{escaped(old)}$->{new}") for old, new in pairs), *rules]
