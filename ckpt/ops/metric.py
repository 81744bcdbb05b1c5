"""Metric: add measurements to a version."""

from collections.abc import Mapping

from ckpt.errors import UsageError
from ckpt.registry.later_words import Words, add_words
from ckpt.registry.registry import InRegistry, Registry


def metric(
    ref: str,
    values: Mapping[str, float],
    *,
    message: str = "",
    registry: InRegistry | None = None,
) -> Words:
    """Add values of metrics to a version, with their author and the time.

    The newest value of a metric is the one that `ckpt ls` shows; the others are kept.

    Args:
        ref: The version.
        values: E.g. ``{"accuracy": 0.9921}``.
        message: How or why it was measured.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version.
        UsageError: There is no value, or one is not a finite number.

    Example:
        >>> ckpt.metric("net:v1", {"f1": 0.9}).metrics
        {'f1': 0.9}
    """
    if not values:
        raise UsageError("no metric given", hint=f"ckpt metric {ref} accuracy=0.992")
    return add_words(Registry.of(registry), ref, metrics=values, why=message)
