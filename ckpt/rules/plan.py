"""The plan: what a list of rules does to the tensors of a checkpoint, before anything is written.

Rules apply in the order given, tensor to the result of the one before.
Laws: no two keys end up with the same name; every rule changed something; the order is kept; every
tensor of the source goes into the result or is named as dropped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from ckpt.errors import KeyCollisionError, PlanError, RuleError, UnmatchedRuleError
from ckpt.rules.expressions import Source, sources_of
from ckpt.rules.key_map import KeyMap
from ckpt.rules.planned import Planned, Renaming, Rule
from ckpt.rules.prefixes import Unwrap
from ckpt.rules.substitution import RenameRule, parse_rule
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The old and new name of one key, and the numbers, from 1, of the rules that changed it."""

    old: str
    new: str
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tensor that is not in the result, and the number of the rule that dropped it."""

    key: str
    rule: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of the rules, tensor by tensor.

    Attributes:
        rules: The texts of the rules.
        tensors: The tensors of the result, in order.
        dropped: The tensors of the source that went into none of them.
        aliases: Old name to new, for names that refer to a tensor stored under another key.
        apart: Keys that are stored even if their tensor is tied, since a definition unties it.
    """

    rules: tuple[str, ...]
    tensors: tuple[Planned, ...]
    dropped: tuple[Dropped, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()

    @property
    def changes(self) -> tuple[KeyChange, ...]:
        """The tensors that keep their elements, with their old and new keys."""
        return tuple(
            KeyChange(tensor.made_of.key, tensor.key, tensor.rules)
            for tensor in self.tensors
            if isinstance(tensor.made_of, Source)
        )

    @property
    def renamed(self) -> tuple[KeyChange, ...]:
        """The changes that give another name."""
        return tuple(
            KeyChange(tensor.made_of.key, tensor.key, tensor.rules)
            for tensor in self.tensors
            if isinstance(tensor.made_of, Source) and tensor.made_of.key != tensor.key
        )

    @property
    def made(self) -> tuple[Planned, ...]:
        """The tensors that an operation makes."""
        return tuple(tensor for tensor in self.tensors if not isinstance(tensor.made_of, Source))

    @property
    def is_rename(self) -> bool:
        """Whether only names change: no tensor is made, dropped or duplicated."""
        return self.keeps_tensors and not self.dropped

    @property
    def keeps_tensors(self) -> bool:
        """Whether no tensor is made or duplicated; some may be dropped."""
        return not self.made and len(self.new_keys) == len(self.tensors)

    def drops(self, key: str) -> bool:
        """Whether a key that holds no tensor is dropped: its module loses all of its tensors."""
        module = key.rpartition(".")[0] + "."
        return any(gone.key.startswith(module) for gone in self.dropped) and not any(
            old.startswith(module) for old in self.new_keys
        )

    @property
    def new_keys(self) -> dict[str, str]:
        """Old key to new key, of the tensors that keep their elements."""
        return {
            tensor.made_of.key: tensor.key
            for tensor in self.tensors
            if isinstance(tensor.made_of, Source)
        }

    @property
    def entries_after(self) -> list[TensorEntry]:
        """The tensors of the result, as far as a plan says: keys, dtypes, shapes."""
        return [TensorEntry(t.key, t.made_of.dtype, t.made_of.shape) for t in self.tensors]

    def touched(self, number: int) -> int:
        """How many tensors the rule with this number changed, made or dropped."""
        return sum(number in tensor.rules for tensor in self.tensors) + sum(
            number == dropped.rule for dropped in self.dropped
        )


def plan_tensors(
    entries: Iterable[TensorEntry], rules: Sequence[Rule], *, aliases: Sequence[str] = ()
) -> Plan:
    """Work out the tensors of the result, in the order of `entries`.

    Args:
        entries: The entries of the state_dict; their keys are unique.
        rules: Applied first to last.
        aliases: Names that refer to a tensor stored under another key; rules rename them too.

    Raises:
        KeyCollisionError: Two keys end up with the same name; the message shows both.
        UnmatchedRuleError: A rule, or a line of a map, changed nothing.
        PlanError: A key would become empty or get an empty part, an operation does not fit a
            shape, or no tensor is left.
        RuleError: A rule could not be run on a key.
    """
    tensors = [Planned(entry.key, Source(entry.key, entry.dtype, entry.shape)) for entry in entries]
    named = [Planned(name, Source(name, "uint8", ())) for name in aliases]
    before = tensors
    dropped: list[Dropped] = []
    for number, rule in enumerate(rules, start=1):
        # Rules on names see tensors and aliases together; operations see tensors alone.
        known = [*tensors, *named] if isinstance(rule, Renaming | Unwrap) else tensors
        ran = _credited(known, rule.run(known), number)
        changed = len(ran) != len(known) or any(
            old is not new for old, new in zip(known, ran, strict=True)
        )
        missing = rule.unmatched([tensor.key for tensor in known], changed)
        if missing is not None:
            raise _unmatched(number, rule, missing, [tensor.key for tensor in known])
        if known is not tensors:
            ran, named = ran[: len(tensors)], ran[len(tensors) :]
        dropped += _gone(tensors, ran, number)
        tensors = ran
    if before and not tensors:
        raise PlanError("no tensor would be left")
    for tensor in (*tensors, *named):
        _expect_key(tensor, rules)
    _expect_distinct(before, [*tensors, *named], rules)
    texts = tuple(rule.text for rule in rules)
    followed = {
        old: tensor.key for old, tensor in zip(aliases, named, strict=True) if old != tensor.key
    }
    return Plan(texts, tuple(tensors), tuple(dropped), followed)


def _credited(before: Sequence[Planned], after: Sequence[Planned], number: int) -> list[Planned]:
    """The tensors after a rule, with its number on those that it changed."""
    same = {id(tensor) for tensor in before}
    return [
        it if id(it) in same else Planned(it.key, it.made_of, (*it.rules, number)) for it in after
    ]


def _gone(before: Sequence[Planned], after: Sequence[Planned], number: int) -> list[Dropped]:
    """The sources that are in `before` and in none of `after`."""
    if len(before) == len(after) and all(isinstance(tensor.made_of, Source) for tensor in after):
        return []
    left = {key for tensor in after for key in sources_of(tensor.made_of)}
    keys = dict.fromkeys(key for tensor in before for key in sources_of(tensor.made_of))
    return [Dropped(key, number) for key in keys if key not in left]


def _unmatched(number: int, rule: Rule, missing: str, keys: Sequence[str]) -> UnmatchedRuleError:
    if isinstance(rule, KeyMap):
        text = f"{rule.text}: {missing!r} is not one of the {len(keys):,} keys and not a module"
    elif isinstance(rule, RenameRule):
        text = f"rule {number} '{rule.text}' changes none of the {len(keys):,} keys"
    else:
        text = f"rule {number}, {rule.text}: {missing!r} matches none of the {len(keys):,} keys"
    return UnmatchedRuleError(text, hint=_nearest(missing, keys))


def _nearest(wanted: str, keys: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    depth = wanted.count(".") + 1
    found: dict[str, None] = {}
    # Compare with the beginning of every key, too, as many parts as `wanted` has.
    heads = {".".join(key.split(".")[:depth]): key for key in reversed(keys)}
    for match in get_close_matches(wanted, list(dict.fromkeys([*heads, *keys])), n=3, cutoff=0.5):
        found[heads.get(match, match)] = None
    return f"nearest keys: {', '.join(found)}" if found else None


def _expect_key(tensor: Planned, rules: Sequence[Rule]) -> None:
    if not tensor.rules or "" not in tensor.key.split("."):
        return
    olds = list(sources_of(tensor.made_of))
    if not any("" in old.split(".") for old in olds):
        raise PlanError(
            f"{' and '.join(map(repr, olds[:2])) or 'a new tensor'} would become {tensor.key!r} "
            f"({_blame(tensor, rules)}), which has an empty part",
            hint="match the dot as well, or write the part that stays",
        )


def _expect_distinct(
    before: Sequence[Planned], tensors: Sequence[Planned], rules: Sequence[Rule]
) -> None:
    owner: dict[str, Planned] = {}
    for tensor in tensors:
        other = owner.setdefault(tensor.key, tensor)
        if other is not tensor and (other.rules or tensor.rules):
            raise KeyCollisionError(
                f"two keys would become {tensor.key!r}: "
                f"{_origin(other)} ({_blame(other, rules)}) and "
                f"{_origin(tensor)} ({_blame(tensor, rules)})",
                hint=_way_out([tensor.key for tensor in before], rules),
            )


def _origin(tensor: Planned) -> str:
    return next(sources_of(tensor.made_of), "a new tensor")


def _blame(tensor: Planned, rules: Sequence[Rule]) -> str:
    if not tensor.rules:
        return "unchanged"
    if len(tensor.rules) == 1 and isinstance(rules[tensor.rules[0] - 1], KeyMap):
        return rules[tensor.rules[0] - 1].text
    return ("rule " if len(tensor.rules) == 1 else "rules ") + ", ".join(map(str, tensor.rules))


def _way_out(keys: Sequence[str], rules: Sequence[Rule]) -> str | None:
    """The rule that keeps the number, if a lost number is the cause and keeping it helps."""
    renames = [rule for rule in rules if isinstance(rule, RenameRule)]
    for number, rule in enumerate(renames):
        if len(renames) < len(rules) or r"\d" not in rule.old or "(" in rule.old:
            continue
        digits = r"\d+" if r"\d+" in rule.old else r"\d"
        text = f"{rule.old.replace(digits, f'({digits})', 1)}->{rule.new}{{1}}"
        try:
            better = [*renames[:number], parse_rule(text), *renames[number + 1 :]]
            landed = {reduce(lambda name, rule: rule.apply(name), better, key) for key in keys}
        except RuleError:
            continue
        if len(landed) == len(keys):
            return f"keep the number:  --rule '{text}'"
    if len(rules) < 2:
        return None
    return "rules apply one after the other; --map FILE applies all at once, so that swaps work"
