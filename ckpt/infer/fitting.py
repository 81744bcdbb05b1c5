"""Whether a state_dict fits a definition, and what to type to make it fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from ckpt.compare.keys import Fit, fit
from ckpt.errors import CkptError
from ckpt.infer.rules.suggest import suggest_rules
from ckpt.rules.choice import drop
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Unwrap
from ckpt.rules.substitution import RenameRule
from ckpt.tensors import TensorEntry

MOST_INFERRED = 2_000  # keys; that takes about a second
MOST_DROPPED = 3  # keys; more than these left over are no detail that a hint may leave out


@dataclass(frozen=True, slots=True)
class Fitting:
    """The fit with a definition.

    Attributes:
        definition: Its ref.
        fit: What agrees and what does not.
        options: Of `ckpt rename`, that make the state_dict fit, ``--to`` alone where these are many
            rules; empty where none are known.
    """

    definition: str
    fit: Fit
    options: tuple[str, ...] = ()


def fitting(
    entries: Sequence[TensorEntry], definition: str, wanted: Sequence[TensorEntry]
) -> Fitting:
    """Compare `entries` with those of a definition, strictly."""
    found = fit(entries, wanted)
    if found.fits:
        return Fitting(definition, found)
    for rules in _guesses(entries, wanted):
        if fit(_applied(entries, rules), wanted).fits:
            return Fitting(definition, found, tuple(map(_option, rules)))
    if _can_be_found(entries, wanted):
        return Fitting(definition, found, (f"--to {definition}",))
    return Fitting(definition, found)


def _can_be_found(entries: Sequence[TensorEntry], wanted: Sequence[TensorEntry]) -> bool:
    """Whether rules can be inferred of which nothing is a guess, and that make it fit."""
    if max(len(entries), len(wanted)) > MOST_INFERRED:
        return False
    from ckpt.infer.engine import infer
    from ckpt.infer.rules.synthesis import synthesise

    inference = infer(entries, wanted)
    if not inference.settled or inference.missing:
        return False
    try:
        rules = synthesise(entries, wanted, inference)
    except CkptError:  # no rules express it
        return False
    return fit(_applied(entries, rules), wanted).fits


def _guesses(entries: Sequence[TensorEntry], wanted: Sequence[TensorEntry]) -> Iterator[list[Rule]]:
    """Rules that may make it fit, the plainest first."""
    bare: list[Rule] = [Unwrap()]
    yield bare
    for first in ([], bare):
        after = _applied(entries, first)
        left = fit(after, wanted)
        yield first + _renames(after, left)
        if not left.missing and 0 < len(left.unexpected) <= MOST_DROPPED:
            keys = [entry.key.replace(".", "[.]") for entry in left.unexpected]
            pattern = keys[0] if len(keys) == 1 else f"({'|'.join(keys)})"
            yield [*first, drop(f"^{pattern}$")]


def _renames(entries: Sequence[TensorEntry], left: Fit) -> list[Rule]:
    """Pair what is left over on both sides in order, and find the rules that do just that."""
    if len(left.missing) != len(left.unexpected):
        return []
    pairs = list(zip(left.unexpected, left.missing, strict=True))
    if any(old.shape != new.shape for old, new in pairs):
        return []
    keys = [entry.key for entry in entries]
    return [*suggest_rules(keys, [(old.key, new.key) for old, new in pairs])]


def _applied(entries: Sequence[TensorEntry], rules: Sequence[Rule]) -> list[TensorEntry]:
    """The tensors after the rules; none if these make no plan."""
    try:
        plan = plan_tensors(entries, rules)
    except CkptError:  # a guess that does not work is none
        return []
    return [TensorEntry(e.key, e.made_of.dtype, e.made_of.shape) for e in plan.tensors]


def _option(rule: Rule) -> str:
    match rule:
        case Unwrap():
            return "--unwrap"
        case RenameRule():
            return f"--rule {quote(rule.text)}"
    verb, _, pattern = rule.text.partition(" ")
    return f"--{verb} {pattern}"
