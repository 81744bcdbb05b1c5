"""Where a version's bytes go: small blobs into its manifest, the others into the store.

Several threads may put blobs at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from ckpt.io import digest
from ckpt.registry.manifest import INLINE_BYTES, INLINE_SKELETON_BYTES
from ckpt.registry.store.objects import ObjectStore


@dataclass(slots=True)
class Blobs:
    """The blobs of one version in the making.

    Attributes:
        store: Where those go that are no small ones.
        inline: Those that will stand in the manifest, by digest.
        new_bytes: What the store grew by.
    """

    store: ObjectStore
    inline: dict[str, bytes] = field(default_factory=dict)
    new_bytes: int = 0
    _counted: set[str] = field(default_factory=set)
    _counting: Lock = field(default_factory=Lock)

    def put(self, chunks: Iterable[bytes], nbytes: int) -> str:
        """Keep the `nbytes` bytes of `chunks` and answer their digest."""
        return self._put(chunks, nbytes, INLINE_BYTES)

    def put_skeleton(self, chunks: Iterable[bytes], nbytes: int) -> str:
        """Keep a skeleton, which compresses well and may be larger inside a manifest."""
        return self._put(chunks, nbytes, INLINE_SKELETON_BYTES)

    def _put(self, chunks: Iterable[bytes], nbytes: int, inline_limit: int) -> str:
        if nbytes <= inline_limit:
            data = b"".join(chunks)
            name = digest.of_bytes(data)
            self.inline[name] = data
            return name
        stored = self.store.put(chunks)
        with self._counting:
            if stored.new and stored.digest not in self._counted:
                self._counted.add(stored.digest)
                self.new_bytes += stored.nbytes
        return stored.digest
