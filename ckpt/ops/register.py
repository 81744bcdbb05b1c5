"""Register: add a file as the next version of a model."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import chain
from operator import and_
from os import fspath
from pathlib import Path
from typing import Any

from ckpt.errors import IntegrityError, RefError, UsageError
from ckpt.formats import open_checkpoint
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import RUNS_CODE, OpaqueWord, expect_harmless, kind_of_file, without_opaque
from ckpt.formats.paths import checkpoint_name, open_path, within
from ckpt.formats.pickle.describe import WEIGHTS_HINT
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.files import Told, exists, untold
from ckpt.io.sources import ByteSource, OpenSource
from ckpt.io.threads import Threads
from ckpt.opened import Named
from ckpt.refs import (
    SUFFIXES,
    FileRef,
    UrlRef,
    expect_new_name,
    is_url,
    parse_file_ref,
    parse_url,
)
from ckpt.registry.index import Version
from ckpt.registry.labels import labels
from ckpt.registry.later_words import add_words
from ckpt.registry.manifest import HASHED_WHOLE, Hole, Manifest, Skeleton, read_record
from ckpt.registry.registry import Added, Registry, parent_record
from ckpt.registry.store.new_objects import NewObjects, Read
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.version import VersionSource
from ckpt.side_files import (
    MOST_BYTES,
    Found,
    Readable,
    SideFile,
    expect_few,
    expect_names,
    named,
    of_folder,
)
from ckpt.tensors import Span, TensorEntry

Map = Callable[..., Iterator[Any]]
_WORTH_THREADS = 32 << 20  # bytes; below, threads cost more time than they save


def register(
    ref: Named,
    *,
    registry: Registry | None = None,
    name: str | None = None,
    message: str = "",
    metrics: Mapping[str, float] | None = None,
    made_by: str | None = None,
    record: Mapping[str, Any] | None = None,
    definition_source: str | None = None,
    parent: str | None = None,
    alias: str | None = None,
    tags: Iterable[str] = (),
    opaque: OpaqueWord | None = None,
    with_files: Iterable[Path | str | Readable] = (),
    folder_files: bool = True,
    most: int = MOST_BYTES,
    told: Told = untold,
) -> Added:
    """Add the file that `ref` names as the next version of a model, unless it holds the same bytes.

    A file elsewhere is read by ranges, and compared with the SHA-256 that its server states.

    If a version does, a message and metrics that it lacks are added to that one.

    Args:
        ref: A path or URL, with ``::model`` for one state_dict of a training checkpoint.
        registry: The registry; None finds it as the command line does.
        name: The model; None takes the file's name without its suffix.
        message: The version's message.
        metrics: E.g. ``{"accuracy": 0.9921}``.
        made_by: How it was made, a few words for `ckpt ls`.
        record: More to keep: parent, plan, training config, environment.
        definition_source: Source text of the definition that it fits.
        parent: The version that it was made from, e.g. by fine-tuning.
        alias: An alias that points to the version from the moment on that it is there.
        tags: Tags that it has from then on.
        opaque: ``keep`` stores objects of unknown classes byte for byte, ``drop`` stores the file
            without them; None refuses those that run code when unpickled.
        with_files: Files and folders to keep beside the weights, such as ``config.json``.
        folder_files: Whether the small files of a checkpoint's folder are kept too, if `ref` names
            the folder; a file of `with_files` goes before one of the same name.
        most: The limit of all these, in bytes.
        told: Called with the bytes done and the bytes in all.

    Raises:
        FormatError: The file is not a readable checkpoint, or does not match its own checksums.
        IntegrityError: A file elsewhere has another SHA-256 than its server states.
        UsageError: A value of the record is one that readers would refuse, or the files beside
            the weights are too large or have names that collide; nothing is stored.
    """
    registry = registry or Registry()
    wanted = labels(alias, tags)
    origin = None if parent is None else registry.version(parent)
    with _opened_files(ref) as file:
        model = model_name(file.path) if name is None else expect_new_name(name)
        how = f"register {file.path.name}" if made_by is None else made_by
        notes = {"model": model, "message": message, "metrics": metrics or {}, **(record or {})}
        notes |= {"source": file.origin} if file.origin else {}
        read_record({**notes, "made_by": how})  # before gigabytes are stored
        checkpoint, dropped = _opened(file.source, file.inside, opaque)
        notes |= expect_harmless(checkpoint, opaque)
        how += " --keep-opaque" if RUNS_CODE in notes else ""
        beside = _side_files(file, with_files, folder_files, most)
        rights = reduce(and_, (each.rights for each in beside.files), file.source.rights)
        with registry.store.writing():
            objects = NewObjects(registry.store, rights)
            notes |= _store_definition(definition_source, objects)
            manifest = _store(checkpoint, file, objects, told)
            manifest = replace(manifest, side_files=tuple(_stored(beside.files, objects)))
            manifest = _with_notes(manifest, notes, origin, objects)
            if file.origin:
                manifest = _compared(manifest, registry.store, file)
            file.source.expect_unchanged()
            new = objects.new_bytes
            added = registry.add(
                model, manifest, new_bytes=new, made_by=how, rights=rights, labels=wanted
            )
            names = tuple(each.name for each in beside.files)
            added = replace(
                added,
                dropped=tuple(dropped),
                side_files=names,
                left=beside.left,
                kind=kind_of_file(checkpoint),
            )
            return added if added.new else _with_words(added, registry, message, metrics)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files to register, open.

    Attributes:
        source: Their bytes.
        path: Of the file or folder; at which nothing is here if they are elsewhere.
        inside: The state_dict, as after ``FILE::``.
        beside: Finds what their folder holds besides them.
        origin: Where they come from, if they are elsewhere.
        digests: The SHA-256 of files that their server states, by name.
    """

    source: OpenSource
    path: Path
    inside: str | None
    beside: Callable[[], Found]
    origin: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def _opened_files(ref: Named) -> Iterator[_Files]:
    if isinstance(ref, str) and is_url(ref):
        url = parse_url(ref)
        if isinstance(url, UrlRef) and url.version is not None:
            raise UsageError(
                "a version of a registry elsewhere is not a file",
                hint="ckpt export URL#VERSION -o FILE  writes it here; register that",
            )
        if isinstance(url, UrlRef):
            from ckpt.remote.elsewhere.opening import files_at

            with files_at(url, whole=True) as found:
                origin, digests = found.origin, found.digests
                yield _Files(
                    found.source, found.path, url.inside, found.side_files, origin, digests
                )
            return
        ref = f"{url.path}::{url.inside}" if url.inside else url.path
    file = _file_of(ref)
    with open_path(file.path) as source:
        own = [part.name for part in source.parts]

        def beside() -> Found:
            return of_folder(file.path, own) if file.path.is_dir() else Found()

        yield _Files(source, file.path, file.inside, beside)


def _file_of(ref: Named) -> FileRef:
    file = within(parse_file_ref(fspath(ref)))
    if isinstance(ref, str) and ".py:" in ref and not exists(file.path):
        raise RefError(f"{ref} is a definition and holds no weights", hint=WEIGHTS_HINT)
    return file


def _compared(manifest: Manifest, store: ObjectStore, file: _Files) -> Manifest:
    """The manifest with the digest of the whole file, after a look at what was stored.

    The stored bytes are read again, in the order of the files: they came in another.

    Raises:
        IntegrityError: A file has another SHA-256 than its server states.
    """
    stored = VersionSource(file.source.name, manifest, store)
    for part in stored.parts:
        stated = file.digests.get(part.name)
        if stated is None:
            continue
        found = digest.of_chunks(stored.stream(part.offset, part.nbytes))
        if found != f"sha256:{stated}":
            raise IntegrityError(
                f"{file.source.name}: {part.name}: {found}, its server states sha256:{stated}",
                hint="nothing was registered; try again later",
            )
    if stored.size > HASHED_WHOLE:
        return manifest
    return replace(manifest, file_digest=digest.of_chunks(stored.stream(0, stored.size)))


def _with_words(
    added: Added, registry: Registry, message: str, metrics: Mapping[str, float] | None
) -> Added:
    """A version that was there already, with the message and metrics that it lacked."""
    said = add_words(registry, added.version.ref, text=message, metrics=metrics)
    return replace(added, version=said.version, noted=said.text, measured=said.metrics)


def _side_files(
    file: _Files, with_files: Iterable[Path | str | Readable], of_its_folder: bool, most: int
) -> Found:
    """The files to keep beside the weights, by name."""
    own = [part.name for part in file.source.parts]
    found = file.beside() if of_its_folder else Found()
    chosen: list[Readable] = []
    for each in with_files:
        chosen += [each] if isinstance(each, Readable) else named([each])
    names = {each.name for each in chosen}
    files = [*chosen, *(each for each in found.files if each.name not in names)]
    expect_few(files, most)
    try:
        expect_names([*(own if files else ()), *(each.name for each in files)])
    except ValueError as error:
        raise UsageError(f"{file.path}: {error}", hint="rename one of them") from error
    return Found(tuple(sorted(files, key=lambda each: each.name)), found.left)


def _stored(files: Iterable[Readable], objects: NewObjects) -> Iterator[SideFile]:
    for file in files:
        yield SideFile(file.name, file.nbytes, objects.put(file.chunks, file.nbytes))


def _with_notes(
    manifest: Manifest, notes: dict[str, Any], origin: Version | None, objects: NewObjects
) -> Manifest:
    if origin is not None:
        notes["parent"] = parent_record(origin, manifest.tensors_digest)
    return replace(manifest, record=notes, inline=objects.inline)


def _opened(
    source: ByteSource, inside: str | None, opaque: OpaqueWord | None
) -> tuple[Checkpoint, Sequence[str]]:
    checkpoint = open_checkpoint(source, inside=inside)
    return without_opaque(checkpoint, inside) if opaque == "drop" else (checkpoint, ())


def model_name(path: Path) -> str:
    """A model's name from a file's: ``My Net.best.pth.tar`` gives ``My-Net.best``.

    Raises:
        UsageError: The file's name has no letter or digit that a model's may have.
    """
    name = checkpoint_name(path)
    while name.lower().endswith((*SUFFIXES, ".tar")):  # no ref reaches a model of such a name
        name = name.rpartition(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:128].rstrip(".")
    if not name:
        hint = "--name NAME  names the model: letters, digits, '.', '_' or '-'"
        raise UsageError(f"{path.name}: gives no name for a model", hint=hint)
    return name


def skeleton_of(source: ByteSource, spans: Iterable[Span]) -> tuple[Read, int]:
    """The bytes around the spans, and their number."""
    around, position = [], 0
    for span in spans:
        around.append(Span(position, span.offset - position))
        position = span.end
    around.append(Span(position, source.size - position))

    def read() -> Iterator[bytes]:
        return chain.from_iterable(source.stream(gap.offset, gap.nbytes) for gap in around)

    return read, sum(gap.nbytes for gap in around)


def _store(checkpoint: Checkpoint, file: _Files, objects: NewObjects, told: Told) -> Manifest:
    """Store the file's tensors and skeleton; the manifest names them."""
    source = checkpoint.source
    holes = _store_tensors(checkpoint, objects, told)
    is_small = source.size <= HASHED_WHOLE and not file.origin  # see `_compared`
    skeleton = objects.put_skeleton(*skeleton_of(source, checkpoint.spans))
    is_single = len(source.parts) == 1
    return Manifest(
        format=checkpoint.format,
        file_name=source.parts[0].name if is_single else checkpoint_name(file.path),
        file_digest=digest.of_chunks(source.stream(0, source.size)) if is_small else None,
        skeleton=Skeleton(source.size, tuple(holes), skeleton),
        entries=tuple(_digested(checkpoint, holes, objects)),
        inside=file.inside,
        rest=checkpoint.rest,
        files=() if is_single else tuple((part.name, part.nbytes) for part in source.parts),
    )


def _store_tensors(checkpoint: Checkpoint, objects: NewObjects, told: Told) -> list[Hole]:
    """Store the spans of tensors, checked against the file's own checksums."""
    checked = CheckedSource(checkpoint.source, checkpoint.checksums, checkpoint.entries)

    def stored(span: Span) -> Hole:
        read = partial(checked.stream, span.offset, span.nbytes)
        return Hole(span.offset, span.nbytes, objects.put(read, span.nbytes))

    holes, size = list[Hole](), checkpoint.source.size
    with _side_by_side(size) as side:
        for hole in side(stored, checkpoint.spans):
            holes.append(hole)
            told(hole.end, size)
    checked.finish()
    return holes


def _digested(
    checkpoint: Checkpoint, holes: list[Hole], objects: NewObjects
) -> Iterator[TensorEntry]:
    """The entries with their digests; a tensor that fills no hole gets an object of its own."""
    filled = {Span(hole.offset, hole.nbytes): hole.digest for hole in holes}
    for entry in checkpoint.entries:
        tensor = filled.get(entry.span) if entry.span else None
        if tensor is None:
            tensor = objects.put(partial(tensor_bytes, checkpoint.source, entry), entry.nbytes)
        yield TensorEntry(entry.key, entry.dtype, entry.shape, digest=tensor)


def _store_definition(source: str | None, objects: NewObjects) -> dict[str, Any]:
    if source is None:
        return {}
    data = source.encode("utf-8")
    return {"definition": {"digest": objects.put(lambda: [data], len(data)), "nbytes": len(data)}}


@contextmanager
def _side_by_side(nbytes: int) -> Iterator[Map]:
    """A `map` that works in threads if there are enough bytes for it.

    The first failure is raised, and calls that have not begun by then are dropped.
    """
    if nbytes < _WORTH_THREADS:
        yield map
        return
    # hashlib and the disk work without the GIL. Most threads wait for a sync, and syncs that wait
    # together share one write of the journal.
    threads = Threads((os.cpu_count() or 1) + 8)
    try:
        yield threads.map
    finally:
        threads.shutdown(cancel_futures=True)
