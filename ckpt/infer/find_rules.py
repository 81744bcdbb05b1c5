"""Inference: the rules that turn one state_dict into another, found rather than told.

Where both sides hold values these are read, for equal bytes are proof. Law: the rules, applied to
the source, give what the inference says; nothing that it calls ambiguous is in them unasked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckpt.compare.pairs import hashed
from ckpt.errors import PlanError
from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference, Match, Operation
from ckpt.infer.rules.synthesis import synthesise
from ckpt.io.files import Told, untold
from ckpt.opened import Named, Opened, OpenedDefinition, OpenedFile, OpenedState, open_ref
from ckpt.registry.registry import Registry
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Source
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

_COUNTER = "num_batches_tracked"  # of BatchNorm; files from before torch 0.4.1 have none
_NAMED = 3  # ambiguous keys in a message


@dataclass(frozen=True, slots=True)
class Found:
    """A mapping, and the rules that express it.

    Attributes:
        source: What was looked at.
        target: What it shall become.
        inference: Which key becomes which, and how sure that is.
        rules: Applied to the source, first to last.
        wanted: The tensors of the target.
    """

    source: str
    target: str
    inference: Inference
    rules: tuple[Rule, ...]
    wanted: tuple[TensorEntry, ...]


def find_rules(
    source: Named,
    target: Named,
    *,
    registry: Registry | None = None,
    arguments: dict[str, object] | None = None,
    told: Told = untold,
) -> Found:
    """Find the mapping from one ref to another; what is ambiguous is in it as a guess.

    Args:
        source: A version, a file or a definition.
        target: Likewise.
        registry: Where versions are looked up.
        arguments: What a definition is called with.
        told: Told how far reading is.

    Raises:
        RefError: A side names nothing.
        RuleError: No rules express the mapping.
    """
    registry = registry or Registry()
    with open_ref(source, registry, arguments) as a, open_ref(target, registry, arguments) as b:
        return rules_between(a, b, told=told)


def rules_between(
    source: Opened, target: Opened, first: Sequence[Rule] = (), *, told: Told = untold
) -> Found:
    """As `find_rules`, of what is open.

    Args:
        source: What is looked at.
        target: What it shall become.
        first: Rules that go before those that are found, and settle what they can.
        told: Told how far reading is.
    """
    mine, theirs = source.entries, target.entries
    if not isinstance(source, OpenedDefinition) and not isinstance(target, OpenedDefinition):
        mine, theirs = _with_digests(source, told), _with_digests(target, told)
    after, settled = _after(mine, first, theirs)
    inference = infer(
        [entry for entry in after if entry.key not in settled],
        [entry for entry in theirs if entry.key not in settled],
    )
    told_so = tuple(Match(key, key, Confidence.CERTAIN, 1.0, evidence="a rule") for key in settled)
    inference = replace(inference, matches=(*told_so, *inference.matches))
    rules = synthesise(after, theirs, inference)
    counters = _counters(inference, theirs)
    missing = tuple(key for key in inference.missing if not counters or _COUNTER not in key)
    return Found(
        source.name,
        target.name,
        replace(inference, missing=missing),
        (*first, *rules, *counters),
        tuple(theirs),
    )


def expect_settled(found: Found) -> None:
    """Refuse a mapping of which a part is a guess.

    Raises:
        PlanError: Something is ambiguous; the message says what.
    """
    open_ = list(found.inference.ambiguous())
    if not open_:
        return
    named = "; ".join(map(_alternatives, open_[:_NAMED]))
    more = f"; and {len(open_) - _NAMED:,} more" if len(open_) > _NAMED else ""
    raise PlanError(
        f"{found.source}: nothing decides what becomes of {named}{more}",
        hint=f"ckpt diff {found.source} {found.target} --map  shows all\n"
        "a --rule for one of them settles it; --accept-likely takes the best guess",
    )


def _alternatives(each: Match | Operation) -> str:
    if isinstance(each, Match):
        return f"{each.source} ({' or '.join(each.candidates[:_NAMED])})"
    return f"{', '.join(each.sources)} ({each.verb})"


def _after(
    entries: Sequence[TensorEntry], rules: Sequence[Rule], target: Sequence[TensorEntry]
) -> tuple[list[TensorEntry], list[str]]:
    """The tensors after some rules; and the keys to which these gave their place in the target."""
    if not rules:
        return list(entries), []
    digests = {entry.key: entry.digest for entry in entries}
    planned = plan_tensors(entries, rules).tensors
    after = [
        TensorEntry(
            each.key,
            each.made_of.dtype,
            each.made_of.shape,
            digest=digests[each.made_of.key] if isinstance(each.made_of, Source) else None,
        )
        for each in planned
    ]
    places = {(entry.key, entry.shape) for entry in target}
    settled = [e.key for e in planned if e.rules and (e.key, e.made_of.shape) in places]
    return after, settled


def _with_digests(side: OpenedState, told: Told) -> list[TensorEntry]:
    if not isinstance(side, OpenedFile):
        return list(side.entries)
    digests = hashed(side, side.entries, told=told)
    return [replace(entry, digest=digests[entry.key]) for entry in side.entries]


def _counters(inference: Inference, target: Sequence[TensorEntry]) -> list[Rule]:
    """A rule that fills BatchNorm's counters with zero, where all of them are missing.

    torch does the same on loading (nn.modules.batchnorm, `_load_from_state_dict`).
    """
    missing = {key for key in inference.missing if key.rpartition(".")[2] == _COUNTER}
    if not missing or missing != {e.key for e in target if e.key.rpartition(".")[2] == _COUNTER}:
        return []
    fill = {"fill": rf"\1.{_COUNTER}", "beside": r"^(.*)\.running_var$", "value": 0, "shape": []}
    return read_rules([{**fill, "dtype": "int64"}], name="the counters")
