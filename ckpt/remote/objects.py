"""Objects and manifests, sent to a bucket and received from it.

Laws: every byte is verified while it is read, on this side and on the other; a manifest is sent
after its objects, so where a bucket has a manifest, it has its objects; what is there is not sent
again. The layout of a bucket is that of `.ckpt`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, as_completed
from threading import Lock
from typing import TypeVar

from ckpt.errors import AbsentError, IntegrityError, RemoteError
from ckpt.io import digest
from ckpt.io.files import Told, untold
from ckpt.io.threads import Threads
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import ObjectStore
from ckpt.remote.bucket import Bucket

AT_ONCE = 8  # requests
MOST_MANIFEST = 1 << 28  # bytes; a manifest of 100,000 tensors has some 20 MB
_ASKED_FIRST = 1 << 16  # bytes; smaller objects are sent without asking whether they are there

Objects = Mapping[str, tuple[int, str]]  # digest to bytes and name in messages
_T = TypeVar("_T")


def path_of(name: str, kind: str = "objects") -> str:
    """The path of an object in a bucket: ``objects/ab/cdef…``."""
    hexadecimal = name.removeprefix("sha256:")
    return f"{kind}/{hexadecimal[:2]}/{hexadecimal[2:]}"


class Progress:
    """The bytes that all threads together have moved.

    Args:
        told: Called with them.
        total: The bytes in all.
    """

    def __init__(self, told: Told, total: int) -> None:
        self._told, self._total, self._done = told, total, 0
        self._adding = Lock()

    def add(self, nbytes: int) -> None:
        """Note more bytes."""
        with self._adding:
            self._done += nbytes
            self._told(min(self._done, self._total), self._total)

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, noted."""
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk


def in_parallel(work: Callable[[str], _T], names: Iterable[str]) -> dict[str, _T]:
    """The result of each; after the first error no more work begins, and it is raised."""
    with Threads(AT_ONCE) as threads:
        futures: dict[Future[_T], str] = {threads.submit(work, name): name for name in names}
        try:
            return {futures[done]: done.result() for done in as_completed(futures)}
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def send_objects(
    store: ObjectStore, bucket: Bucket, objects: Objects, told: Told = untold
) -> dict[str, int]:
    """Send objects; digest to bytes of those that were new.

    Raises:
        IntegrityError: One is missing or damaged here.
        RemoteError: The bucket refuses them, or cannot be reached.
    """
    progress = Progress(told, sum(nbytes for nbytes, _ in objects.values()))

    def send(name: str) -> bool:
        nbytes, what = objects[name]
        if not store.has(name) and _is_there(bucket, name, nbytes):
            return False
        chunks = progress.passing(store.stream(name, nbytes, what))
        return send_one(bucket, path_of(name), chunks, nbytes)

    sent = in_parallel(send, objects)
    return {name: objects[name][0] for name, new in sent.items() if new}


def _is_there(bucket: Bucket, name: str, nbytes: int) -> bool:
    stat = bucket.head(path_of(name))
    return stat is not None and stat.nbytes == nbytes


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


def receive_objects(
    registry: Registry, bucket: Bucket, objects: Objects, where: str, told: Told = untold
) -> dict[str, int]:
    """Put objects of a bucket into the store, verified; digest to bytes of those that were new.

    Args:
        registry: The registry.
        bucket: The bucket.
        objects: What to receive.
        where: The name of the remote, for messages.
        told: Called with the bytes done and in all.

    Raises:
        IntegrityError: One is missing or damaged there; nothing of it is stored.
    """
    store = registry.store
    wanted = {name: each for name, each in objects.items() if not store.has(name)}
    progress = Progress(told, sum(nbytes for nbytes, _ in wanted.values()))

    def receive(name: str) -> int:
        nbytes, what = wanted[name]
        whose = f"{where}: object {digest.short(name)} of {what}"
        try:
            # No byte more than this is read, whatever is there.
            chunks = bucket.stream(path_of(name), 0, nbytes)
            if chunks is None:
                raise AbsentError(f"{whose} is missing there")
            store.put(progress.passing(chunks), name=name)
        except AbsentError:
            raise
        except (IntegrityError, RemoteError) as error:
            stat = bucket.head(path_of(name))
            if isinstance(error, RemoteError) and stat and stat.nbytes == nbytes:
                raise
            size = f"{stat.nbytes:,}" if stat else "no"
            raise IntegrityError(
                f"{whose} is damaged there: {size} bytes, {nbytes:,} expected, or digest differs"
            ) from error
        return nbytes

    return in_parallel(receive, wanted)


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


def new_id() -> str:
    """A name that nobody else chooses."""
    return os.urandom(8).hex()
