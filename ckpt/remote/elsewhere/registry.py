"""A registry elsewhere, to read from: static files below a URL.

They lie there as in `.ckpt`, with or without that folder: `registry.json`, `manifests/ab/cdef…`,
`objects/ab/cdef…`; or as on a remote, where small objects are in packs. Laws: only what is needed
is fetched; it is verified by its digest; nothing is kept here, and nothing is written there.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ckpt.errors import IntegrityError, RefError, RemoteError
from ckpt.io import digest
from ckpt.io.rights import EVERYBODY, Rights
from ckpt.io.sources import OpenSource
from ckpt.registry.index import Index
from ckpt.registry.index_file import MOST_BYTES, read_index
from ckpt.registry.manifest import Manifest
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import ObjectStore
from ckpt.remote.elsewhere.place import Opening, Place
from ckpt.remote.objects.parcels import Parcel, parcels_of
from ckpt.remote.objects.receiving import MOST_MANIFEST

_LAYOUTS = ("", ".ckpt/")


class StoreElsewhere(ObjectStore):
    """The objects and manifests below a URL.

    Args:
        place: The folder of the registry.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(Path("elsewhere:"))
        self._there = place
        self._layouts: tuple[str, ...] = _LAYOUTS  # the first is tried first
        self._packs: dict[str, tuple[Parcel, int]] = {}  # of an object, and where it begins
        self._read: tuple[str, bytes] = "", b""  # the last pack: its name and bytes

    def rights(self, name: str, kind: str = "manifests") -> Rights:
        """Nothing elsewhere says who may read a copy here."""
        return EVERYBODY

    def manifest(self, name: str) -> Manifest:
        """A manifest; it also says in which packs its small objects are."""
        manifest = super().manifest(name)
        packs = (each for each in parcels_of(manifest.objects()) if each.is_pack)
        self._packs |= {name: (pack, at) for pack in packs for name, at, _ in pack.spans()}
        return manifest

    def stream(self, name: str, nbytes: int, what: str) -> Iterator[bytes]:
        """The bytes of an object, which are verified when the stream ends; never more of them.

        Raises:
            IntegrityError: It is absent, or has other bytes.
        """
        data = self._packed(name, nbytes, what)
        if data is None:
            yield from self._verified("objects", name, what, nbytes, exact=True)
        else:
            yield data

    def _packed(self, name: str, nbytes: int, what: str) -> bytes | None:
        """The bytes of an object by its pack, which is read whole; None if it is in none."""
        if name not in self._packs:
            return None
        pack, at = self._packs[name]
        read = self._read
        if read[0] != pack.name:
            try:
                with self._opened("packs", pack.name, what) as file:
                    read = pack.name, file.read(0, min(file.size, pack.nbytes))
            except IntegrityError:  # as of a registry to which only an earlier ckpt has pushed
                for each in pack.objects:
                    self._packs.pop(each, None)
                return None
            self._read = read
        data = read[1][at : at + nbytes]
        if digest.of_bytes(data) != name:
            raise IntegrityError(
                f"{self._there.name}/{pack.path}: damaged: the digest of {what} differs"
            )
        return data

    def _stream(self, kind: str, name: str, what: str) -> Iterator[bytes]:
        return self._verified(kind, name, what, MOST_MANIFEST, exact=False)

    def _verified(
        self, kind: str, name: str, what: str, nbytes: int, *, exact: bool
    ) -> Iterator[bytes]:
        if exact and not nbytes:
            return
        with self._opened(kind, name, what) as file:
            if file.size > nbytes or (exact and file.size != nbytes):
                limit = f"{nbytes:,} were expected" if exact else f"the limit is {nbytes:,}"
                raise IntegrityError(f"{file.name}: {file.size:,} bytes of {what}, {limit}")
            hasher = hashlib.sha256()
            for chunk in file.stream(0, file.size):
                hasher.update(chunk)
                yield chunk
            if f"sha256:{hasher.hexdigest()}" != name:
                raise IntegrityError(f"{file.name}: damaged: the digest of {what} differs")

    def _opened(self, kind: str, name: str, what: str) -> OpenSource:
        hexadecimal = name.removeprefix("sha256:")
        for layout in self._layouts:
            path = f"{layout}{kind}/{hexadecimal[:2]}/{hexadecimal[2:]}"
            try:
                found = self._there.opened(path, Opening(True, {}))
            except RefError:
                continue
            self._layouts = (layout, *(each for each in _LAYOUTS if each != layout))
            return found
        raise IntegrityError(
            f"{self._there.name}: object {digest.short(name)} of {what} is missing",
            hint="the registry there is not complete: ckpt push  there sends what it needs",
        )


class RegistryElsewhere(Registry):
    """A registry below a URL, to read from.

    Args:
        place: Its folder.
    """

    def __init__(self, place: Place) -> None:
        # Without the base's, which looks for a folder here.
        self.folder, self._is_named = Path("elsewhere:"), True
        self._place = place

    @property
    def exists(self) -> bool:
        """Its index is read when something is looked up."""
        return True

    @cached_property
    def store(self) -> ObjectStore:
        """Its objects and manifests."""
        return StoreElsewhere(self._place)

    def index(self) -> Index:
        """Its index, as it was when it was first read."""
        return self._index

    @cached_property
    def _index(self) -> Index:
        with self._place.opened(FILE_NAME, Opening(True, {})) as file:
            if file.size > MOST_BYTES:
                raise RemoteError(f"{file.name}: {file.size:,} bytes, the limit is {MOST_BYTES:,}")
            return read_index(file.read(0, file.size), name=file.name)
