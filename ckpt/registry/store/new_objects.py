"""The objects of a version that is being added: small ones go into its manifest, others are stored.

Several threads may put objects at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from ckpt.io import digest
from ckpt.io.rights import Rights
from ckpt.registry.manifest import INLINE_BYTES, INLINE_SKELETON_BYTES
from ckpt.registry.store.objects import ObjectStore


@dataclass(slots=True)
class NewObjects:
    """The objects of one new version.

    Attributes:
        store: Where the larger ones go.
        rights: Who may read their source.
        inline: The small ones, for the manifest, by digest.
        new_bytes: Bytes added to the store.
    """

    store: ObjectStore
    rights: Rights
    inline: dict[str, bytes] = field(default_factory=dict)
    new_bytes: int = 0
    _counted: set[str] = field(default_factory=set)
    _counting: Lock = field(default_factory=Lock)

    def put(self, chunks: Iterable[bytes], nbytes: int, *, inline_limit: int = INLINE_BYTES) -> str:
        """Keep the `nbytes` bytes of `chunks` and return their digest."""
        if nbytes <= inline_limit:
            data = b"".join(chunks)
            name = digest.of_bytes(data)
            self.inline[name] = data
            return name
        put = self.store.put(chunks, self.rights)
        with self._counting:
            if put.new and put.digest not in self._counted:
                self._counted.add(put.digest)
                self.new_bytes += put.nbytes
        return put.digest

    def put_skeleton(self, chunks: Iterable[bytes], nbytes: int) -> str:
        """Keep a skeleton, which compresses well and may be larger inside a manifest."""
        return self.put(chunks, nbytes, inline_limit=INLINE_SKELETON_BYTES)
