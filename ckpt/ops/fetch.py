"""Fetch: the index and the manifests of a remote, without tensors."""

from ckpt.registry.registry import Registry
from ckpt.remote.merging import Fetched, Side
from ckpt.remote.pulling import fetch_index
from ckpt.remote.remotes import find_remote


def fetch(
    remote: str | None = None, *, side: Side | None = None, registry: Registry | None = None
) -> Fetched:
    """Merge the index of a remote into that of the registry, and get its manifests.

    Args:
        remote: Its name; None for ``origin``, or the only one.
        side: ``ours`` or ``theirs`` wins where both moved an alias.
        registry: The registry.

    Raises:
        ConflictError: Both moved an alias, and `side` is None; nothing is changed then.
        IntegrityError: The index there is damaged, or older than before.
    """
    registry = registry or Registry()
    return fetch_index(registry, find_remote(registry, remote), side=side)
