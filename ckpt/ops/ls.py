"""List versions, filtered and sorted: ``accuracy>0.99``, ``tag=golden``, ``-accuracy``.

A field is a metric's name, or one of `FIELDS`; a metric of such a name is ``metric.size``.
A version without the field matches no condition, and comes last in any order.
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isnan
from typing import Any

from ckpt.errors import UsageError
from ckpt.registry.index import Index, Version
from ckpt.registry.registry import Registry

Value = float | str
_FORM = re.compile(r"\s*([\w.@/ -]+?)\s*(>=|<=|!=|>|<|=)\s*(.*?)\s*")
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
FIELDS = ("model", "version", "made_by", "message", "created", "keys", "size", "new_bytes")
LABELS = ("tag", "alias")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as it was typed."""

    text: str
    field: str
    operator: str
    operand: str

    def holds(self, version: Version, index: Index) -> bool:
        """Whether `version` matches; an operand that must be a number may be an error."""
        if self.field in LABELS:
            model = index.models[version.model]
            has = model.tags_of(version) if self.field == "tag" else model.aliases_of(version)
            return (self.operand in has) == (self.operator == "=")
        found = value(version, self.field)
        if found is None:
            return False
        compared = _COMPARED[self.operator]
        if isinstance(found, str):  # so that ``created>2026-11`` works
            return compared(found, self.operand)
        try:
            return compared(found, float(self.operand.removeprefix("v")))
        except ValueError as error:
            raise UsageError(f"--where {self.text!r}: {self.operand!r} is not a number") from error


def value(version: Version, field: str) -> Value | None:
    """A field of a version, or a metric; None if it has neither."""
    if field in FIELDS:
        found = getattr(version, "number" if field == "version" else field)
        return found if isinstance(found, str) else float(found)
    metric = version.metrics.get(field.removeprefix("metric."))
    return None if metric is None or isnan(metric) else float(metric)


def parse_condition(text: str) -> Condition:
    """Read ``FIELD OPERATOR VALUE``."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--where {text!r} is not a condition",
            hint="e.g. --where 'accuracy>0.99'; quote it, or the shell redirects the output",
        )
    condition = Condition(text, *match.groups())
    if condition.field in LABELS and condition.operator not in ("=", "!="):
        raise UsageError(f"--where {text!r}: use = or != for a {condition.field}")
    return condition


def ls(
    model: str | None = None,
    *,
    where: Iterable[str] = (),
    sort: str | None = None,
    registry: Registry | None = None,
) -> list[Version]:
    """The versions that match every condition, in order.

    Args:
        model: Their model; None for all models.
        where: See `parse_condition`.
        sort: A field, ascending; with ``-`` before it descending. Versions of equal value keep
            their order, newest first.
        registry: The registry; None finds it as the command line does.

    Raises:
        UsageError: A condition is malformed, or no version has such a field.
    """
    registry = registry or Registry()
    index, versions = registry.index(), registry.versions(model)
    conditions = [parse_condition(text) for text in where]
    descending, field = (sort or "").startswith("-"), (sort or "").removeprefix("-")
    for name in [*(condition.field for condition in conditions), *([field] if field else [])]:
        _expect_known(name, versions)
    chosen = [
        version
        for version in versions
        if all(condition.holds(version, index) for condition in conditions)
    ]
    if not field:
        return chosen
    values = [(value(version, field), version) for version in chosen]
    having = [pair for pair in values if pair[0] is not None]
    having.sort(key=operator.itemgetter(0), reverse=descending)
    return [version for _, version in having] + [v for found, v in values if found is None]


def _expect_known(name: str, versions: Sequence[Version]) -> None:
    metrics = {metric for version in versions for metric in version.metrics}
    known = [*FIELDS, *LABELS, *sorted(metrics)]
    if versions and name.removeprefix("metric.") not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UsageError(f"no version has a field {name!r}", hint=hint)
