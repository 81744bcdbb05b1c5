"""The table of versions, with the values by which a page sorts it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ckpt.ops.site import Origin
from ckpt.registry.index import Index
from ckpt.show.look.words import metric, size
from ckpt.show.site.links import Links

_METRICS = 3  # the most frequent ones; a version's page has all


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, its style, and of which metric it is, if of one."""

    head: str
    style: str = ""
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, and the value by which it is sorted."""

    text: str
    value: object = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One version."""

    model: str
    name: str
    link: str
    order: str
    aliases: Sequence[str] = ()
    tags: Sequence[str] = ()
    cells: Sequence[Cell] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Aliases and tags, which have no spaces."""
        return [*self.aliases, *self.tags]


def columns_of(origins: Sequence[Origin]) -> list[Column]:
    """The columns for these versions; the most frequent metrics have one each."""
    found = Counter(name for origin in origins for name in origin.version.metrics)
    named = sorted(found, key=lambda name: (-found[name], name))[:_METRICS]
    messages = [Column("message", "words less")] * any(o.version.message for o in origins)
    return [
        Column("version", "name"),
        *(
            Column(name, f"number{' less' * (at > 0)}", metric=name)
            for at, name in enumerate(named)
        ),
        Column("made by", "made less"),
        Column("keys", "number less"),
        Column("size", "number less"),
        Column("when", "when"),
        *messages,
    ]


def rows_of(
    origins: Sequence[Origin],
    columns: Sequence[Column],
    index: Index,
    links: Links,
    *,
    root: str,
    with_model: bool,
) -> list[Row]:
    """A row for each version."""
    rows = []
    for origin in origins:
        version, model = origin.version, index.models[origin.version.model]
        values: dict[str, Cell] = {
            "made by": Cell(version.made_by, version.made_by),
            "keys": Cell(f"{version.keys:,}", version.keys),
            "size": Cell(size(version.size), version.size),
            "when": Cell(version.created[:10], version.created),
            "message": Cell(version.message, version.message),
        }
        rows.append(
            Row(
                version.model,
                version.ref if with_model else version.label,
                root + links.version(version.ref),
                f"{version.model} {version.number:09}",
                model.aliases_of(version),
                model.tags_of(version),
                [_cell(column, version.metrics, values) for column in columns[1:]],
            )
        )
    return rows


def _cell(column: Column, metrics: Any, values: dict[str, Cell]) -> Cell:
    if column.metric is None:
        return values[column.head]
    if column.metric not in metrics:
        return Cell("")
    value = metrics[column.metric]
    return Cell(metric(column.metric, value), value)
