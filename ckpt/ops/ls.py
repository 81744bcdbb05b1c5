"""List versions, filtered and sorted: ``accuracy>0.99 and tag=golden``, ``-accuracy``.

`ckpt.registry.condition` describes conditions and fields. A version without the field matches no
condition, and comes last in any order.
"""

import operator
from collections.abc import Iterable

from ckpt.refs import several
from ckpt.registry.condition import expect_field, expect_fields, parse_condition, value
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version


def ls(
    model: str | None = None,
    *,
    where: str | Iterable[str] = (),
    sort: str | None = None,
    registry: InRegistry | None = None,
) -> list[Version]:
    """The versions that match every condition, in order.

    Args:
        model: Their model; None for all models.
        where: One or several conditions; see `ckpt.registry.condition`.
        sort: A field, ascending; with ``-`` before it descending. Versions of equal value keep
            their order, newest first.
        registry: The registry; None finds it as the command line does.

    Raises:
        UsageError: A condition is malformed, or no version has such a field.

    Example:
        >>> [version.ref for version in ckpt.ls("net", where=["accuracy>0.9"])]
        ['net:v1']
    """
    registry = Registry.of(registry)
    index, versions = registry.index(), registry.versions(model)
    conditions = [parse_condition(text) for text in several(where)]
    for condition in conditions:
        expect_fields(condition, versions, index)
    descending, field = (sort or "").startswith("-"), (sort or "").removeprefix("-")
    chosen = [
        version
        for version in versions
        if all(condition.holds(version, index) for condition in conditions)
    ]
    if not field:
        return chosen
    expect_field(field, versions, index, option="--sort")
    values = [(value(version, field, index), version) for version in chosen]
    having = [pair for pair in values if pair[0] is not None]
    having.sort(key=operator.itemgetter(0), reverse=descending)
    return [version for _, version in having] + [v for found, v in values if found is None]
