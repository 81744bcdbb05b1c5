"""Push: add versions to a remote."""

from ckpt.io.files import Told, untold
from ckpt.registry.registry import Registry
from ckpt.remote.oci.reference import expect_no_artifact
from ckpt.remote.pushing import Pushed, push_versions
from ckpt.remote.remotes import find_remote


def push(
    *refs: str,
    remote: str | None = None,
    registry: Registry | None = None,
    told: Told = untold,
) -> Pushed:
    """Add versions to a remote, with their aliases, tags and history, and fetch what is new there.

    What the remote has keeps its number; a version here that has the same number gets a new one.

    Args:
        *refs: The versions; none for all.
        remote: Its name; None for ``origin``, or the only one.
        registry: The registry.
        told: Called with the bytes sent and in all.

    Raises:
        ConflictError: Both sides moved an alias.
        RemoteError: The remote refuses a request or cannot be reached.
        IntegrityError: An object is damaged or not here.
    """
    expect_no_artifact(refs, "to write one:  ckpt export REF -o oci://HOST/TEAM/MODEL:TAG")
    registry = registry or Registry()
    found = find_remote(registry, remote)
    registry.expect_there()
    chosen = [registry.version(ref) for ref in refs] if refs else None
    return push_versions(registry, found, chosen, told)
