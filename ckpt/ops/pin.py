"""Pin: the ref of a version that never means another one."""

from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version


def pin(ref: str, *, registry: InRegistry | None = None) -> Version:
    """The version that `ref` names now; the digest of its manifest names it for ever.

    Example:
        >>> ckpt.pin("net@prod").ref
        'net:v1'
    """
    return Registry.of(registry).version(ref)
