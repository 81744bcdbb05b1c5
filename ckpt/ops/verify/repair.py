"""Repair: replace damaged objects by good copies from files, other registries and remotes.

Law: only bytes are copied whose SHA-256 is the name of the damaged object.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from os import fspath
from pathlib import Path
from typing import ClassVar

from ckpt.errors import FormatError, IntegrityError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.paths import open_path, within
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.sources import ByteSource
from ckpt.opened.named import Named
from ckpt.ops.register.storing import skeleton_of
from ckpt.ops.verify import Damage, Verified, verify
from ckpt.printed import Printed
from ckpt.refs import parse_file_ref, several
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.store.objects import ObjectStore
from ckpt.remote.bucket import Bucket
from ckpt.remote.objects.parcels import path_of
from ckpt.remote.objects.receiving import MOST_MANIFEST, places_of
from ckpt.remote.remotes import read_remotes
from ckpt.side_files import Readable, named, of_folder

Chunks = Callable[[], Iterable[bytes]]
_ROUNDS = 2  # a restored manifest may name further damaged objects


@dataclass(frozen=True, slots=True, repr=False)
class Repaired(Printed):
    """The repaired damage, and the damage that is left.

    Attributes:
        taken: Each repaired damage, and the place that had a good copy.
        left: The result of verifying again.
    """

    VIEW: ClassVar = "ckpt.show.verify:repaired_text"

    taken: tuple[tuple[Damage, str], ...]
    left: Verified


def repair_store(
    places: Named | Iterable[Named], *, registry: InRegistry | None = None
) -> Repaired:
    """Verify, and copy each damaged object from the first place that has a good copy.

    Args:
        places: Checkpoint files, ``FILE::model``, folders of other registries, or names of
            remotes, one or several.
        registry: The registry to repair; None finds it as the command line does.
    """
    given: tuple[Named, ...] = several(places)
    registry = Registry.of(registry)
    taken: list[tuple[Damage, str]] = []
    left = verify(registry=registry)
    for again in range(_ROUNDS):
        found: list[tuple[Damage, str]] = []
        for place in given:
            # A side file that has given its bytes is no checkpoint to look into.
            with suppress(FormatError) if again else nullcontext():
                found += _take(fspath(place), left.damages, registry)
        if not found:
            break
        taken += found
        left = verify(registry=registry)
    return Repaired(tuple(taken), left)


def _take(
    place: str, damages: Iterable[Damage], registry: Registry
) -> Iterator[tuple[Damage, str]]:
    folder = Path(place)
    if (folder / FILE_NAME).is_file() or (folder / ".ckpt").is_dir():
        yield from _take_from_registry(Registry(folder).store, place, damages, registry)
        return
    remote = None if folder.exists() else read_remotes(registry).get(place)
    if remote is not None:
        yield from _take_from_remote(remote.bucket(), place, damages, registry)
        return
    ref = within(parse_file_ref(place))
    if ref.path.is_file() and ref.inside is None:
        taken = list(_take_files(named([ref.path]), place, damages, registry))
        yield from taken
        if taken:  # a file that is an object whole, such as a tokenizer
            return
    with open_path(ref.path) as source:
        checkpoint = open_checkpoint(source, inside=ref.inside)
        yield from _take_from_file(source, checkpoint, place, damages, registry)
        if ref.path.is_dir():
            files = of_folder(ref.path, [part.name for part in source.parts]).files
            yield from _take_files(files, place, damages, registry)


def _take_files(
    files: Iterable[Readable], place: str, damages: Iterable[Damage], registry: Registry
) -> Iterator[tuple[Damage, str]]:
    wanted = {damage.digest: damage for damage in damages if damage.nbytes is not None}
    sizes = {damage.nbytes for damage in wanted.values()}
    for file in files:
        if file.nbytes in sizes and (found := wanted.get(digest.of_chunks(file.chunks()))):
            with registry.store.writing():
                registry.store.put(file.chunks(), file.rights)
            yield found, place


def _take_from_registry(
    other: ObjectStore, place: str, damages: Iterable[Damage], registry: Registry
) -> Iterator[tuple[Damage, str]]:
    for damage in damages:
        # If it is damaged or missing there too, another place may have it.
        with suppress(IntegrityError), registry.store.writing():
            if damage.nbytes is None:
                registry.store.copy_manifest(damage.digest, other)
            else:
                rights = other.rights(damage.digest, "objects")
                registry.store.put(other.stream(damage.digest, damage.nbytes, place), rights)
            yield damage, place


def _take_from_remote(
    bucket: Bucket, place: str, damages: Iterable[Damage], registry: Registry
) -> Iterator[tuple[Damage, str]]:
    for damage in damages:
        with registry.store.writing():
            if _is_taken(bucket, damage, registry):
                yield damage, place


def _is_taken(bucket: Bucket, damage: Damage, registry: Registry) -> bool:
    """Whether a bucket has a good copy, which is stored then."""
    store, name = registry.store, damage.digest
    if damage.nbytes is None:
        found = bucket.get(path_of(name, "manifests"), most=MOST_MANIFEST)
        with suppress(IntegrityError):  # damaged there, too
            if found is not None:
                store.put_fetched(found[0], name)
                return True
        return False
    for path, offset in places_of(registry, name, damage.nbytes):
        chunks = bucket.stream(path, offset, damage.nbytes)
        with suppress(IntegrityError):
            if chunks is not None:
                store.put(chunks, name=name)
                return True
    return False


def _take_from_file(
    source: ByteSource,
    checkpoint: Checkpoint,
    place: str,
    damages: Iterable[Damage],
    registry: Registry,
) -> Iterator[tuple[Damage, str]]:
    wanted = {damage.digest: damage for damage in damages if damage.nbytes is not None}
    sizes = {damage.nbytes for damage in wanted.values()}
    for nbytes, chunks in _objects_of(source, checkpoint):
        if nbytes in sizes and (damage := wanted.pop(digest.of_chunks(chunks()), None)):
            with registry.store.writing():
                registry.store.put(chunks(), source.rights)
            yield damage, place


def _objects_of(source: ByteSource, checkpoint: Checkpoint) -> Iterator[tuple[int, Chunks]]:
    """The objects that registering the file would store: its tensors and its skeleton."""
    for span in checkpoint.spans:
        yield span.nbytes, partial(source.stream, span.offset, span.nbytes)
    for entry in checkpoint.entries:
        if entry.span not in checkpoint.spans:
            yield entry.nbytes, partial(tensor_bytes, checkpoint.source, entry)
    read, nbytes = skeleton_of(source, checkpoint.spans)
    yield nbytes, read
