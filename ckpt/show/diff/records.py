"""How two records differ."""

import json
from collections.abc import Sequence
from typing import Any

from ckpt.ops.diff.records import Fact
from ckpt.show.look.tables import Table
from ckpt.show.look.words import metric, printable

_LONGEST = 60  # characters of a value; --json shows all of it


def facts_table(facts: Sequence[Fact], before: str, after: str) -> Table:
    """A row for each field."""
    rows = [
        [fact.name, *(_value(fact.name, value) for value in (fact.before, fact.after))]
        for fact in facts
    ]
    return Table(["record", before, after], rows)


def _value(name: str, value: Any) -> str:
    if value is None:
        return ""
    if type(value) in (int, float):
        group, _, last = name.rpartition(".")
        return metric(last, value) if group.endswith("metrics") else f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value)
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
