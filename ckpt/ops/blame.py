"""Blame: the version that last changed a tensor."""

from ckpt.ops.log import Touch, touches
from ckpt.registry.registry import InRegistry


def blame(
    key: str, ref: str | None = None, *, registry: InRegistry | None = None
) -> list[tuple[str, Touch]]:
    """The version that last added or changed each tensor.

    Returns:
        The matching keys of the version, each with its last touch that was not a rename; see
        `ckpt.ops.log.touches`.
    """
    histories = touches([key], ref, registry=registry)
    return [
        (name, next(touch for touch in history if touch.did != "renamed"))
        for name, history in histories.items()
    ]
