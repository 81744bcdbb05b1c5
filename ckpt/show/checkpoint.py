"""One checkpoint, version or definition: `ckpt show`; and the lineage of a version."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpt import digest
from ckpt.ops.show import Shown, Step
from ckpt.show.terminal import table
from ckpt.show.versions import version_data
from ckpt.show.words import count, metrics, printable, shape, size

LONG_VALUE = 100  # characters; --json has the whole


def shown_text(shown: Shown, *, width: int | None) -> str:
    """First what it is, then where it comes from, then its tensors."""
    head = [f"{printable(shown.name)}  {' · '.join(_facts(shown))}", *_origin(shown)]
    headers = ["key", "shape", "dtype", "size"]
    rows = [
        [printable(entry.key), shape(entry.shape), entry.dtype, size(entry.nbytes)]
        for entry in shown.entries
    ]
    parts = ["\n".join(head), table(rows, headers, right=["size"], width=width)]
    if shown.rest:
        parts.append("\n".join(["non-tensor part:", *_listed(shown.rest)]))
    return "\n\n".join(parts)


def _facts(shown: Shown) -> Iterator[str]:
    if shown.format:
        yield shown.format
    if shown.size is not None:
        yield size(shown.size)
    dtypes = Counter(entry.dtype for entry in shown.entries)
    numel = sum(entry.numel for entry in shown.entries)
    yield count(len(shown.entries), "key")
    yield f"{count(numel, 'element')} of {', '.join(dtypes) or 'no dtype'}"


def _origin(shown: Shown) -> Iterator[str]:
    version = shown.version
    if version is None:
        return
    if shown.aliases:
        yield f"  aliases   {', '.join(shown.aliases)}"
    yield f"  made by   {printable(version.made_by)}, {version.created}"
    if version.metrics:
        yield f"  metrics   {metrics(version.metrics)}"
    if version.message:
        yield f"  message   {printable(version.message)}"
    yield f"  manifest  {version.manifest}"
    yield f"  file      {version.file or 'not put together yet (a rename): ckpt export does it'}"
    record = shown.record or {}
    shown_already = ("model", "metrics", "message")
    yield from _listed({key: record[key] for key in record if key not in shown_already})


def _listed(values: Mapping[str, Any]) -> Iterator[str]:
    wide = max(map(len, map(printable, values)), default=0)
    for key, value in values.items():
        text = printable(_brief(value))
        yield f"  {printable(key):<{max(wide, 8)}}  {text}"


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key or repr(key)} {_brief(each)}" for key, each in value.items())
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_brief, value))}]"
    else:
        text = f"{value}"
    return text if len(text) <= LONG_VALUE else text[: LONG_VALUE - 1] + "…"


def shown_data(shown: Shown) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "name": shown.name,
        "format": shown.format,
        "size": shown.size,
        "tensors": [
            {
                "key": entry.key,
                "shape": list(entry.shape),
                "dtype": entry.dtype,
                "size": entry.nbytes,
                "digest": entry.digest,
            }
            for entry in shown.entries
        ],
        "rest": shown.rest,
        "version": version_data(shown.version, shown.aliases) if shown.version else None,
        "record": shown.record,
    }


def log_text(steps: Sequence[Step]) -> str:
    """The lineage, newest first."""
    return "\n\n".join("\n".join(_step(step)) for step in steps)


def _step(step: Step) -> Iterator[str]:
    version = step.version
    yield f"{version.ref}  {digest.short(version.manifest)}  {version.created}"
    yield f"  {printable(version.made_by)}"
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
    return [{**version_data(step.version), "record": step.record} for step in steps]
