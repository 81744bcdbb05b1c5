"""Objects and manifests, sent to a bucket.

Laws: every byte is verified while it is read; a manifest is sent after its objects, so where a
bucket has a manifest, it has its objects; what is there is not sent again.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ckpt.errors import AbsentError, RemoteError
from ckpt.io.files import Told, untold
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.small import SmallObjects
from ckpt.remote.bucket import Bucket
from ckpt.remote.objects.parallel import Progress, in_parallel
from ckpt.remote.objects.parcels import Parcel, path_of
from ckpt.remote.objects.receiving import receive_objects

_ASKED_FIRST = 1 << 16  # bytes; less is sent without asking whether it is there


def send_objects(
    registry: Registry, bucket: Bucket, parcels: Iterable[Parcel], where: str, told: Told = untold
) -> dict[str, int]:
    """Send objects; digest to bytes of those that were new.

    What a pack needs and is not here is fetched from other packs there.

    Raises:
        IntegrityError: One is missing or damaged here, and missing there.
        RemoteError: The bucket refuses them, or cannot be reached.
    """
    wanted = {each.path: each for each in parcels}
    progress = Progress(told, sum(each.nbytes for each in wanted.values()))
    small = SmallObjects(registry.store)

    def is_sent(parcel: Parcel) -> bool:
        chunks = progress.passing(_chunks(registry.store, small, parcel))
        return send_one(bucket, parcel.path, chunks, parcel.nbytes)

    def send(path: str) -> bool:
        try:
            return is_sent(wanted[path])
        except AbsentError:
            if is_there(bucket, wanted[path]):
                return False
            with suppress(AbsentError):  # the next line says what is missing
                receive_objects(registry, bucket, [wanted[path]], where)
            return is_sent(wanted[path])

    sent = in_parallel(send, wanted)
    new = (wanted[path].objects for path, is_new in sent.items() if is_new)
    return {name: nbytes for objects in new for name, (nbytes, _) in objects.items()}


def _chunks(store: ObjectStore, small: SmallObjects, parcel: Parcel) -> Iterator[bytes]:
    """The verified bytes of a parcel; nothing is read before they are asked for."""
    if parcel.is_pack:
        yield small.joined(parcel.objects)
    else:
        for name, each in parcel.objects.items():
            yield from store.stream(name, *each)


def is_there(bucket: Bucket, parcel: Parcel) -> bool:
    """Whether a bucket has a parcel in its size."""
    stat = bucket.head(parcel.path)
    return stat is not None and stat.nbytes == parcel.nbytes


def send_one(bucket: Bucket, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
    """Send verified bytes, unless an object of this size is there; whether they were sent.

    An object of another size is damaged: good bytes replace it.
    """
    if nbytes > _ASKED_FIRST and (stat := bucket.head(path)):
        if stat.nbytes == nbytes:
            return False
        bucket.overwrite(path, chunks, nbytes)
        return True
    held = [*chunks] if nbytes <= _ASKED_FIRST else None
    if bucket.put_new(path, chunks if held is None else held, nbytes):
        return True
    stat = bucket.head(path)  # that it exists is believed when it was seen
    if stat is None:
        raise RemoteError(f"{bucket.url}/{path}: refused as existing, but is not there")
    if stat.nbytes != nbytes and held is not None:
        bucket.overwrite(path, held, nbytes)
        return True
    return False


def send_manifests(store: ObjectStore, bucket: Bucket, names: Iterable[str]) -> None:
    """Send manifests, whose objects must be there already."""

    def send(name: str) -> None:
        data = store.manifest_bytes(name)
        send_one(bucket, path_of(name, "manifests"), [data], len(data))

    in_parallel(send, names)


def absent_manifests(bucket: Bucket, names: Iterable[str]) -> set[str]:
    """The manifests that a bucket lacks."""
    asked = {name: path_of(name, "manifests") for name in names}
    found = in_parallel(lambda name: bucket.head(asked[name]) is not None, asked)
    return {name for name, is_there in found.items() if not is_there}
