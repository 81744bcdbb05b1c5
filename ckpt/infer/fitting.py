"""Whether a state_dict fits a definition, and what to type to make it fit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ckpt.compare.allowed import Allowed, other_shapes
from ckpt.compare.keys import Fit, Pair, fit
from ckpt.errors import CkptError
from ckpt.infer.result import InferredOperation, Match
from ckpt.rules.choice import Choice
from ckpt.rules.document import typed
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Unwrap
from ckpt.rules.substitution import RenameRule
from ckpt.tensors import NOT_A_TENSOR, StateDict, TensorEntry
from ckpt.writing.outcome import followers, outcome

if TYPE_CHECKING:
    from ckpt.loading import Answer

MOST_INFERRED = 2_000  # keys; that takes about a second
_MOST_TYPED = 3  # rules; `--to` is shorter than more of them


Pairing = Match | InferredOperation


@dataclass(frozen=True, slots=True)
class Fitting:
    """The fit with a definition.

    Attributes:
        definition: Its ref.
        fit: The keys that agree and those that do not, as `load_state_dict` says: strictly, or
            not strictly where that is allowed.
        options: Options of `ckpt rename` that make the state_dict fit: few rules, or ``--to``;
            empty if none are known.
        rules: The rules that these options stand for.
        pairs: What the keys that do not match probably are on the other side.
        source: What to type for the state_dict.
        under: The keys that lead from the root of the file to the state_dict.
        loaded_by: If there are any, the Python expression that loads the state_dict.
        noted: Names of tied tensors that the file does not store, with the keys that it does;
            `safetensors.torch.load_model` accepts the file, since the definition ties them.
        reshaped: (state_dict's, definition's) tensors of one name and two shapes whose keys do
            not match, or that a rename left out.
        in_part: Whether it differs, and only where that is allowed.
        in_part_by: Options of `ckpt rename` that allow what differs; empty if nothing does, or
            more than a few modules.
        by: The migrations that would make it fit, in words; empty if none are known.
        call: In place of options and migrations, what makes it fit in Python.
    """

    definition: str
    fit: Fit
    options: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    pairs: tuple[Pairing, ...] = ()
    source: str = "SRC"
    under: tuple[str, ...] = ()
    loaded_by: str | None = None
    noted: Mapping[str, str] = field(default_factory=dict)
    reshaped: tuple[Pair, ...] = ()
    in_part: bool = False
    in_part_by: tuple[str, ...] = ()
    by: str = ""
    call: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it fits, or differs only where that is allowed."""
        return self.fit.fits or self.in_part


class Ask(Protocol):
    """Gives torch's verdict on a state_dict, or none."""

    def __call__(self, state: StateDict, *, strict: bool = True) -> "Answer | None":
        """See `ckpt.loading.ask_torch`."""


def unasked(state: StateDict, *, strict: bool = True) -> None:
    """Where there is no class to ask, keys and shapes decide."""


def fitting(state: StateDict, definition: str, wanted: StateDict, ask: Ask = unasked) -> Fitting:
    """Whether a state_dict fits, strictly.

    Args:
        state: The state_dict.
        definition: The name of what it should fit.
        wanted: The keys that this has.
        ask: Gives torch's verdict.
    """
    named = state.loaded_into(wanted)
    found = fit(named, wanted, ask(named))
    if found.fits:
        noted = {entry.key: state.tied[entry.key] for entry in named.entries[len(state.entries) :]}
        return Fitting(definition, found, noted=noted)
    rules = _rules_that_fit(state, wanted, ask)
    options = (_few(rules) or (f"--to {definition}",)) if rules else ()
    pairs = tuple(_pairs(found, fit(state, wanted)))
    return Fitting(
        definition, found, options, rules=rules, pairs=pairs, reshaped=_reshaped(found, pairs)
    )


def fitting_in_part(
    state: StateDict,
    definition: str,
    wanted: StateDict,
    ask: Ask,
    allowed: Allowed,
    reshaped: Sequence[Pair],
) -> Fitting | None:
    """The fit of a state_dict that differs only where that is allowed; None if it does not.

    Args:
        state: The state_dict, without the tensors that are allowed to have another shape.
        definition: The name of what it should fit.
        wanted: The keys that this has.
        ask: Gives torch's verdict.
        allowed: Where it may differ.
        reshaped: (left out, wanted) tensors of one name and two shapes.
    """
    named = state.loaded_into(wanted)
    found = fit(named, wanted, ask(named, strict=False))
    missing = {entry.key for entry in found.missing}
    reshaped = tuple((one, other) for one, other in reshaped if other.key in missing)
    # A class that refuses it strictly, and then misses nothing, has another reason.
    if found.fits or not allowed.covers(found, {other.key for _, other in reshaped}):
        return None
    return Fitting(definition, found, in_part=True, reshaped=reshaped)


def _pairs(found: Fit, by_keys: Fit) -> Iterator[Pairing]:
    """What the keys that do not match probably are on the other side.

    That side may do without its key, as BatchNorm does without its counter: hence `by_keys`.
    """
    from ckpt.infer.engine import infer

    sides: tuple[Sequence[TensorEntry], ...] = (by_keys.unexpected, by_keys.missing)
    mine, theirs = ([e for e in side if e.dtype != NOT_A_TENSOR] for side in sides)
    if mine and theirs and max(len(mine), len(theirs)) <= MOST_INFERRED:
        named = {entry.key for entry in (*found.unexpected, *found.missing)}
        inference = infer(mine, theirs, names_kept=found.agreeing > max(len(mine), len(theirs)))
        yield from (it for it in inference.matches if {it.source, it.target} & named)
        yield from (it for it in inference.operations if {*it.sources, *it.targets} & named)


def _reshaped(found: Fit, pairs: Iterable[Pairing]) -> tuple[Pair, ...]:
    """The keys without a pair that are there in another shape, under a longer or shorter name."""
    paired = {key for pair in pairs for key in _keys_of(pair)}
    mine, theirs = (
        [entry for entry in side if entry.key not in paired]
        for side in (found.unexpected, found.missing)
    )
    return other_shapes(mine, theirs, {})


def _keys_of(pair: Pairing) -> tuple[str, ...]:
    if isinstance(pair, Match):
        return (pair.source, pair.target)
    return (*pair.sources, *pair.targets)


def _rules_that_fit(state: StateDict, wanted: StateDict, ask: Ask) -> tuple[Rule, ...]:
    """Rules that make the state_dict fit without a guess; none if none are known."""
    from ckpt.infer.find_rules import infer_rules

    known = (*state.tied, *followers(state))
    noted = state.tied.keys() - {entry.key for entry in state.entries}
    for first in ([Unwrap()], []):
        try:
            inference, rules = infer_rules(
                state.named, wanted.entries, first, most=MOST_INFERRED, noted=noted
            )
            after = outcome(plan_tensors(state.entries, rules, aliases=known), state)
            after = after.loaded_into(wanted)
        except CkptError:  # nothing to unwrap, too many keys, or no rules express it
            continue
        if inference.lost_companions:
            continue
        if inference.settled and fit(after, wanted).fits and fit(after, wanted, ask(after)).fits:
            return rules
    return ()


def _few(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The options for a few rules; none where `ckpt rename` would apply them in another order."""
    in_order = all(isinstance(rule, Unwrap | Choice | RenameRule) for rule in rules)
    if len(rules) > _MOST_TYPED or not (in_order or len(rules) == 1):
        return ()
    return tuple(option for rule in rules if (option := typed(rule)) is not None)
