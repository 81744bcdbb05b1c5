"""Pin: the ref of a version that never means another one."""

from ckpt.registry.index import Version
from ckpt.registry.registry import Registry


def pin(ref: str, *, registry: Registry | None = None) -> Version:
    """The version that `ref` names now; the digest of its manifest names it for ever."""
    return (registry or Registry()).version(ref)
