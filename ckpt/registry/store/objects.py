"""Objects on disk: `objects/ab/cdef…` and `manifests/ab/cdef…`, mode 0444 or less, never changed.

Laws: an object gets its name only when it is complete and synced; the name itself is on the disk
before a manifest gets its own, and after `sync`. Bytes are hashed as they are read, and
never returned without an error if they do not match the name.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ckpt.errors import CkptError, DiskError, IntegrityError
from ckpt.io import digest
from ckpt.io.durable import early_sync, make_folder, name_new, sync_file, sync_folder
from ckpt.io.files import disk_errors, unlinked
from ckpt.io.lock import exclusive_lock, shared_lock
from ckpt.io.rights import EVERYBODY, OWNER, Rights, is_shared, set_mode
from ckpt.io.temporaries import is_temporary, temporary_file
from ckpt.registry.manifest import Manifest
from ckpt.registry.store.listing import StoredObject, stored_in
from ckpt.registry.store.shared import SharedStore
from ckpt.registry.store.verified import REPAIR, verified

if TYPE_CHECKING:
    from ckpt.registry.store.finishing import Finishing

_SYNCED_IN_TURN = 8  # folders; of more, so many are synced side by side
_SYNCED_AT_ONCE = 32 << 20  # bytes; for a smaller object a thread that syncs early takes longer


@dataclass(frozen=True, slots=True)
class Put:
    """The result of `put`: the object's name, its bytes, and whether they were added."""

    digest: str
    nbytes: int
    new: bool


class ObjectStore:
    """The folder `.ckpt` beside an index.

    Args:
        root: The folder; created with the first object.
        shared: A folder outside of it that gets new objects; older ones may be in either.
    """

    def __init__(self, root: Path, shared: SharedStore | None = None) -> None:
        self.root = root
        self.shared = shared
        self._unsynced: set[Path] = set()  # folders of objects that a power loss would take
        self._finishing: Finishing | None = None

    @property
    def lock(self) -> Path:
        """The lock of those who write and remove objects."""
        return self._root_of("objects") / "writing"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this from the first object of a version until the index names it.

        Objects that were put, or were found in the store, are not collected meanwhile, and are
        on the disk when the block ends.
        """
        with shared_lock(self.lock):
            yield
            self.sync()

    @contextmanager
    def finishing_aside(self) -> Iterator[None]:
        """Sync the objects that are put in the block beside each other; they have names at its end.

        Several threads may put objects in it.
        """
        from ckpt.registry.store.finishing import finishing

        with finishing() as self._finishing:
            try:
                yield
            finally:
                self._finishing = None

    def collecting(self) -> AbstractContextManager[None]:
        """Hold this to remove objects: no version is written meanwhile."""
        return exclusive_lock(self.lock)

    def own_objects(self) -> Iterator[StoredObject]:
        """Every manifest, and every object unless other registries put theirs there too."""
        return self.objects() if self.shared is None else self.manifests()

    def put(
        self, chunks: Iterable[bytes], rights: Rights = EVERYBODY, *, name: str | None = None
    ) -> Put:
        """Store the joined `chunks` under their digest, in one pass over the bytes.

        A power loss may take the name until `sync`, which `writing` and `put_manifest` call.

        Args:
            chunks: The bytes.
            rights: Who may read their source, and so the object.
            name: The digest that they must have.

        Raises:
            IntegrityError: They have another digest; nothing is stored then.
        """
        return self._put("objects", chunks, rights, name)

    def has(self, name: str, kind: str = "objects") -> bool:
        """Whether there is a file for an object or manifest; its bytes are not read."""
        return os.path.lexists(self._path(kind, name))

    def keep(self, name: str, rights: Rights = EVERYBODY) -> bool:
        """Whether the store has an object, whose bytes are verified; it counts as put again.

        Args:
            name: Its digest.
            rights: Who may read the same bytes elsewhere, and so the object.
        """
        with self._disk_errors():
            return self._kept("objects", name, rights)

    def put_manifest(self, manifest: Manifest, rights: Rights = EVERYBODY) -> Put:
        """Store a manifest; its objects must be stored already."""
        return self._put_manifest([manifest.to_bytes()], rights)

    def copy_manifest(self, name: str, other: "ObjectStore") -> Put:
        """Store a manifest of another store, byte for byte; its objects must be stored already.

        Raises:
            IntegrityError: It is absent or damaged there.
        """
        chunks = other._stream("manifests", name, "manifest")
        return self._put_manifest(chunks, other.rights(name))

    def put_fetched(self, data: bytes, name: str) -> Put:
        """Store a manifest that came from a remote, whose objects may stay there.

        Raises:
            IntegrityError: It has another digest than `name`.
        """
        return self._put("manifests", [data], EVERYBODY, name)

    def _put_manifest(self, chunks: Iterable[bytes], rights: Rights) -> Put:
        self.sync()
        put = self._put("manifests", chunks, rights)
        self.sync()
        return put

    def sync(self) -> None:
        """Make the names durable that were given, or found, since the last time.

        Each folder once: hundreds of objects share them, and a sync of each waits for the disk.
        """
        # With the two above: another process may have made them and been killed before it synced.
        folders = sorted({each for path in self._unsynced for each in (path, *path.parents[:2])})
        self._unsynced.clear()  # a sync that failed is not tried again
        with self._disk_errors():
            if len(folders) <= _SYNCED_IN_TURN:
                for folder in folders:
                    sync_folder(folder)
                return
            from ckpt.io.threads import Threads

            with Threads(_SYNCED_IN_TURN) as waiting:
                list(waiting.map(sync_folder, folders))

    def rights(self, name: str, kind: str = "manifests") -> Rights:
        """Who may read a manifest, or an object, besides its owner; nobody if it is missing."""
        try:
            status = self._path(kind, name).lstat()
        except OSError:
            return OWNER
        return Rights(status.st_mode, status.st_gid)

    def manifest(self, name: str) -> Manifest:
        """The manifest with the digest `name`.

        Raises:
            IntegrityError: It is absent or damaged.
        """
        return Manifest.from_bytes(self.manifest_bytes(name))

    def manifest_bytes(self, name: str) -> bytes:
        """The verified bytes of a manifest."""
        return b"".join(self._stream("manifests", name, "manifest"))

    def stream(self, name: str, nbytes: int, what: str) -> Iterator[bytes]:
        """The bytes of an object in chunks, hashed while they are read.

        Args:
            name: Its digest.
            nbytes: Its size.
            what: Its name in messages, e.g. ``fc1.weight``.

        Raises:
            IntegrityError: It is absent or damaged; raised at the latest after the last
                chunk, so no result of the chunks may be kept before the stream ends.
        """
        found = 0
        for chunk in self._stream("objects", name, what):
            found += len(chunk)
            yield chunk
        if found != nbytes:
            raise IntegrityError(
                f"object {digest.short(name)} of {what} has {found:,} bytes, "
                f"{nbytes:,} were expected",
                hint=REPAIR,
            )

    def folder_of(self, name: str, kind: str = "objects") -> Path:
        """The folder where an object is put, which is not a link; older ones may be elsewhere."""
        if not digest.is_digest(name):
            raise IntegrityError(f"not a digest: {name!r}")
        return self._own(kind, name.removeprefix("sha256:")[:2])

    def objects(self, *, larger_than: int = -1) -> Iterator[StoredObject]:
        """Every object and manifest in the store with more than `larger_than` bytes."""
        # Of a shared store, older objects may still be in the registry's own folder.
        for folder in sorted({self._own("objects"), unlinked(self.root, "objects")}):
            yield from stored_in(folder, larger_than, is_manifest=False)
        yield from stored_in(self._own("manifests"), larger_than, is_manifest=True)

    def manifests(self) -> Iterator[StoredObject]:
        """Every manifest in the store."""
        return stored_in(self._own("manifests"), is_manifest=True)

    def temporaries(self) -> list[Path]:
        """Files that are being written; leftovers, if the caller holds `collecting`."""
        roots = {self.root, self._root_of("objects")}
        found = (path for root in roots for path in unlinked(root, "tmp").glob("*"))
        return sorted(path for path in found if is_temporary(path.name))

    def remove(self, objects: Iterable[StoredObject]) -> None:
        """Remove objects and manifests, in this order, durably; called while `collecting`."""
        paths = (stored.path for stored in objects)
        for folder, files in groupby(paths, key=lambda path: path.parent):
            for path in files:
                path.unlink(missing_ok=True)
            with disk_errors(folder):
                sync_folder(folder)

    def _put(
        self, kind: str, chunks: Iterable[bytes], rights: Rights, expected: str | None = None
    ) -> Put:
        with self._disk_errors(), ExitStack() as held:
            temporaries = unlinked(self._root_of(kind), "tmp")
            make_folder(temporaries)
            temporary, out = held.enter_context(temporary_file(temporaries, rights=OWNER))
            name, nbytes = _written(out, chunks)
            if expected not in (None, name):
                raise IntegrityError(f"{nbytes:,} bytes with the digest {digest.short(name)}")
            if self._kept(kind, name, rights):
                return Put(name, nbytes, new=False)
            set_mode(out.fileno(), self._mode(kind, rights, os.fstat(out.fileno()).st_gid))
            place = self._place(kind, name)
            finish = partial(self._finish, held.pop_all(), out, temporary, place)
            if self._finishing is None:
                finish()
            else:
                self._finishing.add(name, finish)
            return Put(name, nbytes, new=True)

    def _finish(self, held: ExitStack, out: BinaryIO, temporary: Path, place: Path) -> None:
        """Make a written object durable and give it its name; `held` is its temporary file."""
        with self._disk_errors(), held:
            sync_file(out)
            self._name(temporary, place)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except CkptError:
            raise
        except OSError as error:
            raise DiskError(f"{self.root}: {error.strerror}: {error.filename or ''}") from error

    def _name(self, temporary: Path, path: Path) -> None:
        make_folder(path.parent, durably=False)
        # A file under this name in spite of `_has_good` is damaged, or another writer has just
        # written the same bytes: either way these good bytes may replace it.
        try:
            name_new(temporary, path, warns=False)  # it would be replaced by the same bytes
        except FileExistsError:
            temporary.replace(path)
        self._unsynced.add(path.parent)

    def _kept(self, kind: str, name: str, rights: Rights) -> bool:
        """Make a good object young again; its first writer may not have finished its version.

        Who may read the same bytes elsewhere may also read the object.
        """
        if self._finishing is not None:
            self._finishing.wait_for(name)
        path = self._path(kind, name)
        if not os.path.lexists(path) or not self._has_good(path, name):
            return False
        with suppress(PermissionError):  # another user's; their gc keeps it while it is needed
            os.utime(path, follow_symlinks=False)
            before = path.lstat()
            mode = self._mode(kind, rights, before.st_gid)
            if mode & ~before.st_mode:
                path.chmod(stat.S_IMODE(before.st_mode) | mode)
        self._unsynced.add(path.parent)
        return True

    def _mode(self, kind: str, rights: Rights, group: int) -> int:
        """Permission bits of an object: who may read its source, and a group that shares it all."""
        return (0o444 & rights.mode(group)) | (0o040 if is_shared(self._root_of(kind)) else 0)

    def _has_good(self, path: Path, name: str) -> bool:
        """Whether the object exists, may be read, and its bytes match its name."""
        try:
            for _ in verified(path, name, "object"):
                pass
        except IntegrityError:
            return False
        except DiskError as error:
            if isinstance(error.__cause__, PermissionError):
                return False
            raise
        return True

    def _stream(self, kind: str, name: str, what: str) -> Iterator[bytes]:
        return verified(self._path(kind, name), name, what)

    def _path(self, kind: str, name: str) -> Path:
        """Where an object is, or would be put."""
        path = self._place(kind, name)
        if self.shared is not None and kind == "objects" and not os.path.lexists(path):
            before = unlinked(self.root, kind, path.parent.name) / path.name
            return before if os.path.lexists(before) else path
        return path

    def _place(self, kind: str, name: str) -> Path:
        return self.folder_of(name, kind) / name.removeprefix("sha256:")[2:]

    def _own(self, kind: str, *names: str) -> Path:
        """A folder of the store, never a link: nothing outside is read, written or removed."""
        return unlinked(self._root_of(kind), kind, *names)

    def _root_of(self, kind: str) -> Path:
        """The folder above that of the objects or manifests."""
        if self.shared is not None and kind == "objects":
            return self.shared.folder()
        return self.root


def _written(out: BinaryIO, chunks: Iterable[bytes]) -> tuple[str, int]:
    """Write the chunks; their digest, and their bytes."""
    hasher, nbytes = hashlib.sha256(), 0
    with ExitStack() as syncing:
        for chunk in chunks:
            if nbytes <= _SYNCED_AT_ONCE < nbytes + len(chunk):
                syncing.enter_context(early_sync(out))
            hasher.update(chunk)
            nbytes += len(chunk)
            out.write(chunk)
    return "sha256:" + hasher.hexdigest(), nbytes
