"""`ckpt log`: the lineage of a version, and the history of its tensors."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import indent
from typing import Any

from ckpt.io import digest
from ckpt.ops.log import Step, Touch
from ckpt.show.look.by import by_text, history_data, words_lines
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, metrics, printable
from ckpt.show.ls import version_data


def log_text(steps: Sequence[Step]) -> str:
    """The lineage, newest first."""
    text = "\n\n".join("\n".join(_step(step)) for step in steps)
    parent = steps[-1].record.get("parent")
    is_copy = any(event.did == "copy" for event in steps[-1].history)
    gone = "not in this registry" if is_copy else "deleted"
    return text + (f"\n  parent: {printable(parent['version'])}, {gone}" if parent else "")


def step_text(step: Step) -> str:
    """One step alone."""
    return log_text([step])


def _step(step: Step) -> Iterator[str]:
    version = step.version
    yield f"{version.ref}  {digest.short(version.manifest)}  {version.created}"
    yield f"  {step.kind}: {printable(version.made_by)}"
    if author := by_text(step.record.get("by"), with_host=True):
        yield f"  by {author}"
    if version.metrics:
        yield f"  {metrics(version.metrics)}"
    if version.message:
        yield f"  {printable(version.message)}"
    plan = step.record.get("plan") or {}
    if plan:
        rules = "  ".join(f"'{printable(rule)}'" for rule in plan["rules"])
        yield f"  {count(len(plan['keys']), 'key')} renamed by {rules}"
    yield from (f"  {line}" for line in words_lines(step.history))


def log_data(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {
            **version_data(step.version),
            "kind": step.kind,
            "record": step.record,
            "history": history_data(step.history),
        }
        for step in steps
    ]


def touches_text(found: Mapping[str, Sequence[Touch]], *, width: int | None) -> str:
    """A table for each tensor, newest change first."""
    heads = ["version", "when", "did", "bytes", "made by"]
    parts = []
    for key, touches in found.items():
        rows = [
            [touch.version.ref, touch.version.created[:10], what_it_did(touch),
             digest.short(touch.digest), touch.version.made_by]
            for touch in touches
        ]  # fmt: skip
        parts.append(f"{printable(key)}\n" + indent(table(rows, heads, width=width), "  "))
    return "\n\n".join(parts)


def touches_data(found: Mapping[str, Sequence[Touch]]) -> dict[str, list[dict[str, Any]]]:
    """The same for JSON, by key."""
    return {key: list(map(touch_data, touches)) for key, touches in found.items()}


def what_it_did(touch: Touch) -> str:
    """``changed``, with the old key if it was renamed too."""
    if touch.before in (None, touch.key):
        return touch.did
    return f"{touch.did}, was {printable(str(touch.before))}"


def touch_data(touch: Touch) -> dict[str, Any]:
    """One change for JSON."""
    names = ("version=version.ref", "did", "as=key", "before", "digest", "created=version.created")
    return fields(touch, *names, "by")
