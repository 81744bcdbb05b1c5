"""Objects and manifests, received from a bucket.

Law: every byte is verified before it gets its name in the store, and what is there does not travel.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ckpt.errors import AbsentError, IntegrityError, RemoteError
from ckpt.io import digest
from ckpt.io.files import Told, untold
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.remote.bucket import Bucket
from ckpt.remote.objects.parallel import Progress, in_parallel
from ckpt.remote.objects.parcels import SMALL, Objects, Parcel, alone, parcels_of, path_of

MOST_MANIFEST = 1 << 28  # bytes; a manifest of 100,000 tensors has some 20 MB


def receive_objects(
    registry: Registry,
    bucket: Bucket,
    parcels: Iterable[Parcel],
    where: str,
    told: Told = untold,
    *,
    wanted: set[str] | None = None,
) -> dict[str, int]:
    """Put objects of a bucket into the store, verified; digest to bytes of those that were new.

    Of a pack, one request gets what is wanted.

    Args:
        registry: The registry.
        bucket: The bucket.
        parcels: Where the objects are, if a push of their version brought them.
        where: The name of the remote, for messages.
        told: Called with the bytes done and in all.
        wanted: The digests of the wanted objects; None for all.

    Raises:
        IntegrityError: One is missing or damaged there; nothing of it is stored.
    """
    parcels = [*parcels]
    store = registry.store
    left: dict[str, tuple[int, str]] = {
        name: each
        for parcel in parcels
        for name, each in parcel.objects.items()
        if (wanted is None or name in wanted) and not store.has(name)
    }
    found = {name: nbytes for name, (nbytes, _) in left.items()}
    receiver = _Receiver(registry, bucket, where, Progress(told, sum(found.values())))
    receiver.receive(parcels, left)
    if left:  # an earlier ckpt may have sent what is small alone
        receiver.receive([alone(name, *each) for name, each in left.items()], left)
    if left:
        receiver.receive(_of_other_versions(registry, left), left)
    for name, (_, what) in left.items():
        raise AbsentError(f"{where}: object {digest.short(name)} of {what} is missing there")
    return found


def _of_other_versions(registry: Registry, objects: Objects) -> list[Parcel]:
    """The packs of all versions that hold some of these objects.

    A version that was made here of one elsewhere has packs of its own only after a push.
    """
    if all(nbytes > SMALL for nbytes, _ in objects.values()):
        return []
    packs: dict[str, Parcel] = {}
    for version in registry.index().every_version():
        with suppress(IntegrityError):  # of a damaged manifest; `ckpt verify` reports it
            found = registry.manifest(version).objects()
            if not objects.keys().isdisjoint(found):
                packs |= {each.path: each for each in parcels_of(found) if each.is_pack}
    return [each for each in packs.values() if not objects.keys().isdisjoint(each.objects)]


class _Receiver:
    """Puts objects of a bucket into a store.

    Args:
        registry: The registry of the store.
        bucket: The bucket.
        where: The name of the remote, for messages.
        progress: Gets the bytes.
    """

    def __init__(self, registry: Registry, bucket: Bucket, where: str, progress: Progress) -> None:
        self._store, self._bucket = registry.store, bucket
        self._where, self._progress = where, progress

    def receive(self, parcels: Iterable[Parcel], left: dict[str, tuple[int, str]]) -> None:
        """Store what parcels hold of the objects that are left, and take them off that list."""
        asked: dict[str, tuple[Parcel, list[str]]] = {}
        taken: set[str] = set()
        for parcel in parcels:
            if names := [name for name in parcel.objects if name in left and name not in taken]:
                taken.update(names)
                asked[parcel.path] = parcel, names
        for stored in in_parallel(lambda path: self._received(*asked[path]), asked).values():
            for name in stored:
                del left[name]

    def _received(self, parcel: Parcel, names: list[str]) -> list[str]:
        """The objects that are stored now: all of these, or none if there is no such parcel."""
        wanted = {*names}
        spans = {name: (at, at + nbytes) for name, at, nbytes in parcel.spans() if name in wanted}
        first, end = min(at for at, _ in spans.values()), max(end for _, end in spans.values())
        whose = names[0]
        try:
            # No byte more than this is read, whatever is there.
            chunks = self._bucket.stream(parcel.path, first, end - first)
            if chunks is None:
                return []
            if not parcel.is_pack:
                self._store.put(self._progress.passing(chunks), name=whose)
                return names
            data = b"".join(chunks)
            for whose, (begin, stop) in spans.items():
                part = data[begin - first : stop - first]
                self._store.put(self._progress.passing([part]), name=whose)
        except (IntegrityError, RemoteError) as error:
            self._raise_damaged(parcel, whose, error)
        return names

    def _raise_damaged(self, parcel: Parcel, name: str, error: Exception) -> None:
        """Tell a damaged parcel from a network that fails."""
        stat = self._bucket.head(parcel.path)
        if isinstance(error, RemoteError) and stat and stat.nbytes == parcel.nbytes:
            raise error
        size = f"{stat.nbytes:,}" if stat else "no"
        what = f"object {digest.short(name)} of {parcel.objects[name][1]}"
        pack = f"{parcel.path}, which holds it, has " if parcel.is_pack else ""
        raise IntegrityError(
            f"{self._where}: {what} is damaged there: {pack}{size} bytes, {parcel.nbytes:,} "
            "expected, or digest differs"
        ) from error


def places_of(registry: Registry, name: str, nbytes: int) -> Iterator[tuple[str, int]]:
    """Each path and offset where a bucket may have an object of this registry."""
    yield path_of(name), 0
    for parcel in _of_other_versions(registry, {name: (nbytes, "")}):
        yield from ((parcel.path, at) for each, at, _ in parcel.spans() if each == name)


def receive_manifests(
    registry: Registry, bucket: Bucket, manifests: Mapping[str, str], where: str
) -> None:
    """Put manifests of a bucket into the store, verified, unless they are there.

    Args:
        registry: The registry.
        bucket: The bucket.
        manifests: Digest to ref.
        where: The name of the remote, for messages.

    Raises:
        IntegrityError: One is missing or damaged there.
    """
    store = registry.store

    def receive(name: str) -> None:
        found = bucket.get(path_of(name, "manifests"), most=MOST_MANIFEST)
        what = f"{where}: manifest {digest.short(name)} of {manifests[name]}"
        if found is None:
            raise AbsentError(f"{what} is missing there")
        if digest.of_bytes(found[0]) != name:
            raise IntegrityError(f"{what} is damaged there: {len(found[0]):,} bytes")
        Manifest.from_bytes(found[0])
        store.put_fetched(found[0], name)

    in_parallel(receive, [name for name in manifests if not store.has(name, "manifests")])
