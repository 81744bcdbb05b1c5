"""Compare records: how two versions were made, and what files hold besides tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckpt.compare.leaves import leaves
from ckpt.opened.states import Opened, OpenedDefinition, OpenedState, OpenedVersion

# Shown elsewhere: curves by `ckpt plot`, keys by the diff itself, the rest by `ckpt log`.
_ELSEWHERE = (
    *("curves", "plan", "parent", "model", "message"),
    *("fits", "created", "made_by", "definition"),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One field that differs.

    Attributes:
        name: Its path, ``training.recipe.lr``.
        before: Its value on the first side; None if it is null or missing.
        after: Its value on the second side; likewise.
    """

    name: str
    before: Any
    after: Any


def differing_facts(a: Opened, b: Opened) -> list[Fact]:
    """The fields that differ, by name; records are compared only if both sides are versions."""
    both = isinstance(a, OpenedVersion) and isinstance(b, OpenedVersion)
    if isinstance(a, OpenedDefinition) or isinstance(b, OpenedDefinition):
        return []
    # Another state_dict of the file has other neighbours, the first one among them.
    held = a.inside == b.inside
    before, after = (dict(_facts(side, made=both, held=held)) for side in (a, b))
    names = [*before, *(name for name in after if name not in before)]
    facts = [Fact(name, before.get(name), after.get(name)) for name in names]
    return [fact for fact in facts if fact.before != fact.after]


def recorded_facts(opened: OpenedVersion) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts of a version that are compared: of its record, and of what its file holds."""
    return dict(_made(opened)), dict(_held(opened))


def _facts(side: OpenedState, *, made: bool, held: bool) -> Iterator[tuple[str, Any]]:
    if made and isinstance(side, OpenedVersion):
        yield from _made(side)
    if held:
        yield from _held(side)


def _made(side: OpenedVersion) -> Iterator[tuple[str, Any]]:
    record = _record(side)
    return leaves({k: v for k, v in record.items() if k not in _ELSEWHERE})


def _held(side: OpenedState) -> Iterator[tuple[str, Any]]:
    held_by = side.manifest if isinstance(side, OpenedVersion) else side.checkpoint
    return leaves({k: v for k, v in held_by.rest.items() if k != "_metadata"})


def _record(side: OpenedVersion) -> dict[str, Any]:
    """The record of a version; the training is that of the nearest ancestor that has one."""
    record = dict(side.manifest.record)
    if "training" not in record:
        from ckpt.ops.log import log

        steps = log(side.version.ref, registry=side.registry)
        trained = (step.record["training"] for step in steps if "training" in step.record)
        record["training"] = next(trained, {})
    return record
