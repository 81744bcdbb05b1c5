"""The lineage of a version: `ckpt log`."""

from collections.abc import Iterator, Sequence
from typing import Any

from ckpt.io import digest
from ckpt.ops.log import Step
from ckpt.show.look.words import count, metrics, printable
from ckpt.show.ls import version_data


def log_text(steps: Sequence[Step]) -> str:
    """The lineage, newest first."""
    text = "\n\n".join("\n".join(_step(step)) for step in steps)
    parent = steps[-1].record.get("parent")
    return text + (f"\n  parent: {printable(parent['version'])}, deleted" if parent else "")


def _step(step: Step) -> Iterator[str]:
    version = step.version
    yield f"{version.ref}  {digest.short(version.manifest)}  {version.created}"
    yield f"  {step.kind}: {printable(version.made_by)}"
    if version.metrics:
        yield f"  {metrics(version.metrics)}"
    if version.message:
        yield f"  {printable(version.message)}"
    plan = step.record.get("plan") or {}
    if plan:
        rules = "  ".join(f"'{printable(rule)}'" for rule in plan["rules"])
        yield f"  {count(len(plan['keys']), 'key')} renamed by {rules}"


def log_data(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {**version_data(step.version), "kind": step.kind, "record": step.record} for step in steps
    ]
