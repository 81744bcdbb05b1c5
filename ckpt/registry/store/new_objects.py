"""The objects of a version that is being added: small ones go into its manifest, others are stored.

Law: nothing is written for bytes that the store holds already. Several threads may put objects at
once.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from ckpt.io import digest
from ckpt.io.rights import Rights
from ckpt.registry.manifest import INLINE_BYTES, INLINE_SKELETON_BYTES
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.twins import Twins, head_of

# The bytes of an object from their beginning, in chunks, at each call.
Read = Callable[[], Iterable[bytes]]
_HELD = 1 << 20  # bytes; an object of so few is held in memory until its digest is known


class Objects(Protocol):
    """Where the objects of a version go."""

    def put(self, read: Read, nbytes: int) -> str:
        """Take the `nbytes` bytes that `read` gives, and return their digest."""

    def put_skeleton(self, read: Read, nbytes: int) -> str:
        """Take a skeleton, likewise."""

    def aside(self) -> AbstractContextManager[None]:
        """While several threads put objects."""


class OnlyDigests:
    """The digests of a version's objects; nothing is kept."""

    def put(self, read: Read, nbytes: int) -> str:
        """The digest."""
        return digest.of_chunks(read())

    def put_skeleton(self, read: Read, nbytes: int) -> str:
        """The digest."""
        return digest.of_chunks(read())

    def aside(self) -> AbstractContextManager[None]:
        """Threads need nothing."""
        return nullcontext()


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
    _twins: Twins = field(init=False)

    def __post_init__(self) -> None:
        self._twins = Twins(self.store, larger_than=_HELD)

    def put(self, read: Read, nbytes: int, *, inline_limit: int = INLINE_BYTES) -> str:
        """Keep the `nbytes` bytes that `read` gives, and return their digest."""
        if nbytes <= inline_limit:
            data = b"".join(read())
            name = digest.of_bytes(data)
            self.inline[name] = data
            return name
        if nbytes <= _HELD:
            held = [*read()]
            return self._known(held) or self._written(held)
        # Hashing first takes a second look at the bytes if they turn out to be new. So it is done
        # only where an object of this size begins alike: after a training step none does.
        head = head_of(read())
        known = self._known(read()) if self._twins.begin_with(head, nbytes) else None
        self._twins.add(head, nbytes)
        return known or self._written(read())

    def put_skeleton(self, read: Read, nbytes: int) -> str:
        """Keep a skeleton, which compresses well and may be larger inside a manifest."""
        return self.put(read, nbytes, inline_limit=INLINE_SKELETON_BYTES)

    def aside(self) -> AbstractContextManager[None]:
        """Sync what several threads put beside each other."""
        return self.store.finishing_aside()

    def _known(self, chunks: Iterable[bytes]) -> str | None:
        """The digest, if the store has the object."""
        name = digest.of_chunks(chunks)
        return name if self.store.keep(name, self.rights) else None

    def _written(self, chunks: Iterable[bytes]) -> str:
        put = self.store.put(chunks, self.rights)
        with self._counting:
            if put.new and put.digest not in self._counted:
                self._counted.add(put.digest)
                self.new_bytes += put.nbytes
        return put.digest
