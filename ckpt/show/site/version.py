"""What the page of a version shows."""

from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import Any

from ckpt.compare.leaves import leaves
from ckpt.ops.diff import RefDiff
from ckpt.ops.show import Shown
from ckpt.ops.site import Described, Site
from ckpt.registry.events import Event
from ckpt.show.diff.page import shortened
from ckpt.show.diff.report import diff_report
from ckpt.show.look.by import by_text, day_and_time, signature_text
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, metric, metrics, size
from ckpt.show.show import totals
from ckpt.show.site.charts import charts
from ckpt.show.site.lineage import graph, relatives
from ckpt.show.site.links import Links
from ckpt.show.site.tree import tree_lines

_LONGEST = 2000  # characters of a value in the record
_FIGURES = 6  # metrics at the top; the record has all
_OWN = ("model", "metrics", "message", "made_by", "created", "by", "curves")  # shown elsewhere


def version_values(found: Described, site: Site, links: Links) -> dict[str, Any]:
    """The values for the template `version.html`."""
    version, shown = found.origin.version, found.shown
    measured = shown.measured
    scores = list(measured.metrics.items()) if measured else []
    root = "../../"
    return {
        "name": version.ref,
        "aliases": shown.aliases,
        "tags": shown.tags,
        "lead": ", ".join(_lead(shown)),
        "message": version.message,
        "figures": [(name, metric(name, value)) for name, value in scores[:_FIGURES]],
        "measured": measured.ref if measured and not version.metrics else "",
        **_neighbours(found, site),
        "reports": [_report(each, found) for each in found.changes],
        "charts": charts(found.curves) if found.curves else [],
        "graph": graph(
            relatives(version.ref, site.origins), site, links, root=root, here=version.ref
        ),
        "uses": _uses(version.ref),
        "history": _history(shown.history),
        "totals": ", ".join(totals(shown)),
        "tree": tree_lines(shown.entries),
        "record": list(_record(shown)),
    }


def _lead(shown: Shown) -> Iterator[str]:
    version = shown.version
    assert version is not None  # what is shown is one
    yield version.made_by
    if author := by_text((shown.record or {}).get("by")):
        yield f"by {author}"
    yield day_and_time(version.created)
    yield f"{shown.format} of {size(version.size)}"


def _neighbours(found: Described, site: Site) -> dict[str, Any]:
    """Links to the version before, the one after, and the comparison with any other."""
    version = found.origin.version
    numbers = sorted(site.index.models[version.model].versions)
    at = numbers.index(version.number)

    def link(number: int) -> tuple[str, str]:
        return f"v{number}", f"v{number}.html"

    others = [number for number in numbers if number != version.number]
    before = numbers[at - 1] if at else max(others, default=None)
    return {
        "older": link(numbers[at - 1]) if at else None,
        "newer": link(numbers[at + 1]) if at + 1 < len(numbers) else None,
        "compare": f"compare.html#v{before}..{version.label}" if before else None,
    }


def _report(diff: RefDiff, found: Described) -> tuple[str, Report, str, int]:
    """The heading, the report, the id of its changes, and how many of these are left out."""
    is_parent = diff.before == found.origin.parent
    title = f"Changes since {diff.before}" + (", from which it was made" if is_parent else "")
    report, left = shortened(diff_report(diff, records=True))
    id = "changes" if diff is found.changes[0] else "changes-since-previous"
    return title, report, id, left


def _uses(ref: str) -> list[tuple[str, str]]:
    name = quote(ref)
    return [
        ("Load it in Python:", f"state = ckpt.load({ref!r})"),
        ("Write it to a file:", f"ckpt export {name} -o {ref.replace(':', '-')}.safetensors"),
    ]


def _history(history: Sequence[Event]) -> Table:
    rows = [
        [day_and_time(event.at), " ".join(filter(None, [event.did, event.name])),
         by_text(event.by),
         "  ".join(filter(None, [metrics(event.metrics), event.text, signature_text(event)]))]
        for event in reversed(history)
    ]  # fmt: skip
    return Table(["when", "what", "by", "why"], rows)


def _record(shown: Shown) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The record by its first parts, and what the file holds besides tensors."""
    version = shown.version
    assert version is not None
    yield (
        "version",
        [
            ("manifest", version.manifest),
            ("file", version.file or "digest not known (renamed, or large)"),
            *((f"side file {file.name}", size(file.nbytes)) for file in shown.side_files),
            *(("runs code when unpickled", found.name) for found in shown.foreign),
        ],
    )
    record = {key: value for key, value in (shown.record or {}).items() if key not in _OWN}
    alone = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
    groups = {"made": alone, **{key: v for key, v in record.items() if isinstance(v, Mapping)}}
    for name, values in {**groups, "held by the file": shown.rest}.items():
        if facts := [(key or "(empty)", _value(value)) for key, value in leaves(values)]:
            yield name, facts


def _value(value: Any) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value)
    return (
        text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({count(len(text), 'character')})"
    )
