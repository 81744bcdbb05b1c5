"""Undo: the plan that gives back what a rename was applied to.

Of a version its manifest says what was done; of a file a rule file does that was saved.
"""

from collections.abc import Sequence

from ckpt.errors import PlanError, UsageError
from ckpt.opened import OpenedVersion
from ckpt.ops.rename.rule_files import RuleFile, read_tensors
from ckpt.registry.index import Version
from ckpt.registry.registry import Registry
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Source, sources_of
from ckpt.rules.inverse import inverse
from ckpt.rules.plan import Dropped, Plan, plan_tensors
from ckpt.rules.planned import Planned
from ckpt.tensors import TensorEntry


def undo_file(name: str, entries: Sequence[TensorEntry], saved: RuleFile) -> Plan:
    """The plan that undoes the rename that a rule file was saved of.

    Args:
        name: What to call the renamed file in messages.
        entries: Its tensors.
        saved: The rule file.

    Raises:
        UsageError: It does not say what it was applied to.
        PlanError: The file is not what these rules made, or they have no inverse.
    """
    if not saved.source:
        raise UsageError(
            "the rule file does not say what it was applied to, and cannot be undone",
            hint="--save-rules FILE writes one that does",
        )
    plan = plan_tensors(saved.source, saved.rules, aliases=saved.aliases)
    return _inverse(name, entries, saved.source, plan)


def undo_version(opened: OpenedVersion) -> Plan:
    """The plan that undoes the rename that made a version.

    Raises:
        UsageError: No rename made it.
        PlanError: The rename has no inverse.
    """
    record = opened.manifest.record.get("plan")
    if not isinstance(record, dict):
        raise UsageError(f"{opened.name} was not made by a rename", hint="ckpt log  says what was")
    if record.get("undone"):
        raise UsageError(
            f"{opened.name} was made by --undo itself", hint="ckpt log  shows what it was made of"
        )
    if "document" in record:
        source = read_tensors(record["source"], name=opened.name)
        saved = read_rules(record["document"], name=opened.name)
        plan = plan_tensors(source, saved, aliases=tuple(record.get("tied", ())))
        hint = f"{parent_name(opened)} has it still"
        return _inverse(opened.name, opened.entries, source, plan, hint=hint)
    old_keys = {new: old for old, new in record["keys"].items()}
    tensors = []
    for entry in opened.entries:
        key = old_keys.get(entry.key, entry.key)
        rules = () if key == entry.key else (1,)
        tensors.append(Planned(key, Source(entry.key, entry.dtype, entry.shape), rules))
    aliases = {new: old for old, new in record.get("aliases", {}).items()}
    return Plan(("undo",), tuple(tensors), aliases=aliases)


def parent_name(opened: OpenedVersion) -> str:
    """The version that this one was made of, by name."""
    parent = opened.manifest.record.get("parent")
    return str(parent["version"]) if isinstance(parent, dict) else "its parent"


def known_parent(opened: OpenedVersion, plan: Plan, registry: Registry) -> Version | None:
    """The version that was renamed, if it is there and undoing gives just that."""
    parent = opened.manifest.record.get("parent")
    if not isinstance(parent, dict):
        return None
    found = [
        v for v in registry.versions(opened.version.model) if parent["manifest"] in v.manifests
    ]
    if not found:
        return None
    theirs = {
        entry.key: (entry.dtype, entry.shape) for entry in registry.manifest(found[0]).entries
    }
    ours = {each.key: (each.made_of.dtype, each.made_of.shape) for each in plan.tensors}
    return found[0] if ours == theirs else None


def _inverse(
    name: str,
    entries: Sequence[TensorEntry],
    source: Sequence[TensorEntry],
    plan: Plan,
    *,
    hint: str = "keep the file that it was made of",
) -> Plan:
    described = {entry.key: (entry.dtype, entry.shape) for entry in entries}
    for each in plan.tensors:
        if described.get(each.key) != (each.made_of.dtype, each.made_of.shape):
            raise PlanError(
                f"{name}: {each.key} is not as the rules made it; this is not what they made"
            )
    if len(described) != len(plan.tensors):
        raise PlanError(
            f"{name}: holds {len(described):,} tensors, the rules made {len(plan.tensors):,}"
        )
    if plan.dropped:
        raise PlanError(
            f"{name}: {plan.dropped[0].key} was dropped; the plan has no inverse",
            hint=hint,
        )
    back = inverse([Source(e.key, e.dtype, e.shape) for e in source], plan.tensors)
    tensors = tuple(
        each if each.made_of == Source(each.key, each.made_of.dtype, each.made_of.shape)
        else Planned(each.key, each.made_of, (1,))
        for each in back
    )  # fmt: skip
    left = {key for each in back for key in sources_of(each.made_of)}
    gone = tuple(Dropped(each.key, 1) for each in plan.tensors if each.key not in left)
    return Plan(("undo",), tensors, gone, {new: old for old, new in plan.aliases.items()})
