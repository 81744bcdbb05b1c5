"""Pin: the ref of a version that never means another one."""

from ckpt.registry.index import Version
from ckpt.registry.registry import InRegistry, Registry


def pin(ref: str, *, registry: InRegistry | None = None) -> Version:
    """The version that `ref` names now; the digest of its manifest names it for ever.

    Example:
        >>> ckpt.pin("net@prod").ref
        'net:v1'
    """
    return Registry.of(registry).version(ref)
