"""Card: what a model card says of a version, from its record and those of its ancestors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckpt.errors import RefError
from ckpt.ops.log import Step, log
from ckpt.ops.show import Shown, show
from ckpt.registry.registry import Registry

IMAGES = "image-classification"  # what `ckpt train` trains for


@dataclass(frozen=True, slots=True)
class Card:
    """What a model card says.

    Attributes:
        shown: The version.
        lineage: The version and its ancestors.
        training: How it was trained, or the nearest ancestor that was; empty if unknown.
        trained: The ref of that version.
        license: An identifier that hubs know, such as ``apache-2.0``.
        task: Likewise, such as ``image-classification``; ``other`` if unknown.
    """

    shown: Shown
    lineage: tuple[Step, ...]
    training: Mapping[str, Any]
    trained: str
    license: str | None
    task: str


def card(
    ref: str,
    *,
    license: str | None = None,
    task: str | None = None,
    registry: Registry | None = None,
) -> Card:
    """What a model card says of a version.

    Args:
        ref: The version.
        license: Its license; it is not recorded.
        task: What it is for; None takes what the record tells.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version.
    """
    registry = registry or Registry()
    shown = show(ref, registry=registry)
    if shown.version is None:
        raise RefError(
            f"{ref} is not a version, so it has no record", hint=f"to add one:  ckpt register {ref}"
        )
    lineage = tuple(log(shown.version.ref, registry=registry))
    trained = next((step for step in lineage if "training" in step.record), None)
    training = trained.record["training"] if trained else {}
    task = task or (IMAGES if "recipe" in training else "other")
    return Card(shown, lineage, training, trained.version.ref if trained else "", license, task)
