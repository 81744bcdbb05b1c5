"""Fetch an object at the moment when something reads it and it is not here.

A small one brings the others of its pack along, which are likely to be read next.
"""

from functools import cache

from ckpt.errors import AbsentError, CkptError, RemoteError
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.remote.bucket import Bucket
from ckpt.remote.objects.parcels import parcels_of
from ckpt.remote.objects.receiving import receive_objects
from ckpt.remote.presence import absent_objects
from ckpt.remote.remotes import read_remotes


class OnDemand:
    """The remotes of one registry, which are asked in the order in which they were added.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry, self._remotes = registry, read_remotes(registry)
        self._said: set[str] = set()
        self._bucket = cache(self._opened)

    def fetch(self, ref: str, manifest: Manifest, name: str, nbytes: int, what: str) -> bool:
        """Put an object of a version into the store; False if there is no remote.

        Raises:
            AbsentError: No remote has it.
            RemoteError: A remote could not be asked.
        """
        if not self._remotes:
            return False
        self._say(ref, manifest)
        objects = manifest.objects(f"{ref}: ")
        parcels = [each for each in parcels_of(objects) if name in each.objects]
        failed: CkptError | None = None
        for remote in self._remotes:
            try:
                with self._registry.store.writing():
                    receive_objects(self._registry, self._bucket(remote), parcels, remote)
            except (AbsentError, RemoteError) as error:
                failed = failed if isinstance(failed, RemoteError) else error
            else:
                return True
        kind = RemoteError if isinstance(failed, RemoteError) else AbsentError
        names = ", ".join(self._remotes)
        raise kind(
            f"{what} is not here (on remote {names}): {failed}", hint=f"ckpt pull {ref}"
        ) from failed

    def _opened(self, remote: str) -> Bucket:
        return self._remotes[remote].bucket()

    def _say(self, ref: str, manifest: Manifest) -> None:
        if ref not in self._said:
            self._said.add(ref)
            absent = absent_objects(self._registry, [manifest])
            nbytes = sum(nbytes for nbytes, _ in absent.values())
            self._registry.on_fetch(
                f"{ref}: {len(absent)} of its objects, {nbytes:,} bytes, are not here; fetching "
                f"what is needed from {', '.join(self._remotes)}"
            )
