"""Blame: the version that last changed a tensor."""

from ckpt.ops.log import Touch, touches
from ckpt.registry.registry import Registry


def blame(
    key: str, ref: str | None = None, *, registry: Registry | None = None
) -> list[tuple[str, Touch]]:
    """The version that last added or changed each tensor.

    Args:
        key: A key of the version, or a module for all its tensors.
        ref: The version; None takes the latest of the only model.
        registry: The registry; None finds it as the command line does.

    Returns:
        The matching keys of the version, each with its last touch that was not a rename.

    Raises:
        RefError: There is no such version or key.
        IntegrityError: A manifest is missing or damaged.
    """
    histories = touches(key, ref, registry=registry)
    return [
        (name, next(touch for touch in history if touch.did != "renamed"))
        for name, history in histories.items()
    ]
