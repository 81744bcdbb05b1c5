"""Undo: the plan that gives back the tensors to which a rename was applied.

A version's manifest records what was done; for a file a saved rule file does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt.errors import PlanError, UsageError
from ckpt.formats.opaque import torch_file
from ckpt.opened.states import OpenedState, OpenedVersion
from ckpt.ops.rename.rule_files import RuleFile, read_tensors
from ckpt.ops.rename.training.optimizers import MovedOptimizer, read_optimizers
from ckpt.rules.derived.inverse import inverse
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Source, sources_of
from ckpt.rules.plan import Dropped, Plan, plan_tensors
from ckpt.rules.planned import Planned
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.registry.registry import Registry
    from ckpt.registry.version import Version


def plan_undo(opened: OpenedState, saved: RuleFile) -> Plan:
    """Work out how to undo the rename that made a version or a file.

    `saved` has the rules of the rename and what was recorded for an undo; without rules, those
    are taken that the version records.
    """
    if isinstance(opened, OpenedVersion) and not saved.rules:
        return undo(*_recorded(opened), of=opened)
    if not saved.source:
        raise UsageError(
            "--undo needs the rule file that the rename saved, and no other rules",
            hint="ckpt rename NEW --undo --rules FILE, with the FILE of --save-rules",
        )
    done = plan_tensors(saved.source, saved.rules, aliases=saved.aliases)
    return undo(done, saved.source, of=opened)


def undone_optimizers(opened: OpenedState, saved: RuleFile) -> tuple[MovedOptimizer, ...]:
    """The optimizers that get back the order that they had before a rename.

    Raises:
        PlanError: They do not have the order that the rename gave them.
    """
    moved = saved.optimizers
    if isinstance(opened, OpenedVersion) and not saved.rules:
        moved = read_optimizers(opened.manifest.record["plan"].get("optimizers", {}))
    file = torch_file(opened.checkpoint)
    held = file.state.optimizers if file else ()
    groups = {optimizer.name: optimizer.groups for optimizer in held}
    for optimizer in moved:
        if groups.get(optimizer.path) != optimizer.after:
            raise PlanError(
                f"{opened.name}: {optimizer.path} does not have the order that the rename gave it"
            )
    return tuple(replace(each, before=each.after, after=each.before) for each in moved)


def former_numbers(opened: OpenedState, saved: RuleFile) -> dict[str, int | None]:
    """What the metadata of the root module said before a rename, where that changed it."""
    if saved.rules:
        return dict(saved.numbers)
    if not isinstance(opened, OpenedVersion):
        return {}
    plan = opened.manifest.record.get("plan")
    return dict(plan.get("numbers", {})) if isinstance(plan, dict) else {}


def undo(done: Plan, before: Sequence[TensorEntry], *, of: OpenedState) -> Plan:
    """The inverse of a plan that was applied to the tensors `before`, and made the result `of`.

    Raises:
        PlanError: The plan did not make this result, or it has no inverse.
    """
    _expect_made(done, of)
    if done.dropped:
        raise PlanError(
            f"{of.name}: {done.dropped[0].key} was dropped; the plan has no inverse",
            hint=f"{parent_name(of)} still has it",
        )
    tensors = []
    for tensor in inverse([Source(e.key, e.dtype, e.shape) for e in before], done.tensors):
        made = tensor.made_of
        same = made == Source(tensor.key, made.dtype, made.shape)
        tensors.append(tensor if same else replace(tensor, rules=(1,)))
    left = {key for tensor in tensors for key in sources_of(tensor.made_of)}
    gone = tuple(Dropped(tensor.key, 1) for tensor in done.tensors if tensor.key not in left)
    aliases = {new: old for old, new in done.aliases.items()}
    return Plan(("undo",), tuple(tensors), gone, aliases)


def parent_name(opened: OpenedState) -> str:
    """The name of the checkpoint that this one was made from, as far as it is recorded."""
    if not isinstance(opened, OpenedVersion):
        return "the file that it was made from"
    parent = opened.manifest.record.get("parent")
    return str(parent["version"]) if isinstance(parent, dict) else "its parent"


def known_parent(opened: OpenedVersion, plan: Plan, registry: "Registry") -> "Version | None":
    """The version that was renamed, if it still exists and undoing gives exactly that."""
    from ckpt.registry.lineage import parent_of

    parent = parent_of(registry, opened.manifest.record)
    if parent is None or parent.removed or parent.model != opened.version.model:
        return None
    theirs = registry.manifest(parent).entries
    return parent if _described(theirs) == _described(plan.entries_after) else None


def _recorded(opened: OpenedVersion) -> tuple[Plan, Sequence[TensorEntry]]:
    """The plan that made a version, and the tensors to which it was applied."""
    record = opened.manifest.record.get("plan")
    if not isinstance(record, dict):
        raise UsageError(
            f"{opened.name} was not made by a rename", hint="to see how it was made:  ckpt log"
        )
    if record.get("undone"):
        raise UsageError(
            f"{opened.name} was made by --undo itself",
            hint="to see what it was made from:  ckpt log",
        )
    if "document" in record:
        before = read_tensors(record.get("source"), name=opened.name)
        rules = read_rules(record["document"], name=opened.name)
        return plan_tensors(before, rules, aliases=tuple(record.get("tied", ()))), before
    old_keys = {new: old for old, new in record["keys"].items()}
    before = [replace(entry, key=old_keys.get(entry.key, entry.key)) for entry in opened.entries]
    tensors = tuple(
        Planned(entry.key, Source(old.key, old.dtype, old.shape))
        for entry, old in zip(opened.entries, before, strict=True)
    )
    return Plan((), tensors, aliases=record.get("aliases", {})), before


def _expect_made(done: Plan, result: OpenedState) -> None:
    """Refuse a result that the plan did not make."""
    described = _described(result.state.named)
    made = _described(done.entries_after)
    for key, description in made.items():
        if described.get(key) != description:
            raise PlanError(
                f"{result.name}: {key} is not as the rules made it; this is not what they made"
            )
    if not made.keys() >= {entry.key for entry in result.entries}:
        raise PlanError(
            f"{result.name}: holds {len(result.entries):,} tensors, the rules made {len(made):,}"
        )


def _described(entries: Iterable[TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {entry.key: (entry.dtype, entry.shape) for entry in entries}
