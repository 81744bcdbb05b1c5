"""Register: add a file as the next version of a model."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import chain
from operator import and_
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from ckpt.errors import FormatError, RefError, UsageError
from ckpt.formats import open_checkpoint
from ckpt.formats.checked import CheckedSource, ChecksumError
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import RUNS_CODE, OpaqueWord, expect_harmless, kind_of_file, without_opaque
from ckpt.formats.paths import checkpoint_name, open_path, within
from ckpt.formats.pickle.describe import WEIGHTS_HINT
from ckpt.formats.stream import tensor_bytes
from ckpt.in_memory import is_module, name_of, unsaved
from ckpt.io import digest
from ckpt.io.files import Told, exists, untold
from ckpt.io.sources import ByteSource, OpenSource
from ckpt.io.threads import Threads
from ckpt.opened import Named
from ckpt.refs import SUFFIXES, expect_new_name, parse_file_ref
from ckpt.registry.index import Version
from ckpt.registry.labels import labels
from ckpt.registry.later_words import add_words
from ckpt.registry.manifest import HASHED_WHOLE, Hole, Manifest, Skeleton, read_record
from ckpt.registry.registry import Added, InRegistry, Registry, parent_record
from ckpt.registry.store.new_objects import NewObjects, Read
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

if TYPE_CHECKING:
    from torch import nn

InMemory = Union[Mapping[str, Any], "nn.Module"]
Map = Callable[..., Iterator[Any]]
_WORTH_THREADS = 32 << 20  # bytes; below, threads cost more time than they save


def register(
    ref: Named | InMemory,
    *,
    registry: InRegistry | None = None,
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
    """Add a file, or what is in memory, as the next version of a model, unless it is there already.

    If a version holds the same bytes, a message and metrics that it lacks are added to that one.
    A state_dict goes into the store as `torch.save` would write it, without a file in between: its
    version is exported as a ``.pt`` file.

    Args:
        ref: A path, with ``::model`` for one state_dict of a training checkpoint; or a state_dict,
            a training checkpoint, or a module, whose state_dict is registered.
        registry: The registry; None finds it as the command line does.
        name: The model; None takes the file's name without its suffix, or the module's class.
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
        UsageError: A value of the record is one that readers would refuse, or the files beside
            the weights are too large or have names that collide; nothing is stored.

    Example:
        >>> added = ckpt.register(net, name="digits", metrics={"accuracy": 0.992}, alias="prod")
        >>> added.version.ref, added.new
        ('digits:v1', True)
        >>> ckpt.register(net.state_dict(), name="digits").new
        False
    """
    given = _given(ref, name)
    metrics = {key: _number(value) for key, value in (metrics or {}).items()}
    registry = Registry.of(registry)
    wanted = labels(alias, tags)
    origin = None if parent is None else registry.version(parent)
    model = model_name(given.path) if name is None else expect_new_name(name)
    how = f"register {given.label}" if made_by is None else made_by
    notes = {"model": model, "message": message, "metrics": metrics, **(record or {})}
    read_record({**notes, "made_by": how})  # before gigabytes are stored
    with given.open() as source:
        checkpoint, dropped = _opened(source, given.inside, opaque)
        notes |= expect_harmless(checkpoint, opaque)
        how += " --keep-opaque" if RUNS_CODE in notes else ""
        beside = _side_files(source, with_files, given.folder if folder_files else None, most)
        rights = reduce(and_, (each.rights for each in beside.files), source.rights)
        with registry.store.writing():
            objects = NewObjects(registry.store, rights)
            notes |= _store_definition(definition_source, objects)
            manifest = _store(checkpoint, given, objects, told)
            manifest = replace(manifest, side_files=tuple(_stored(beside.files, objects)))
            manifest = _with_notes(manifest, notes, origin, objects)
            if isinstance(source, OpenSource):
                source.expect_unchanged()
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
class _Given:
    """What is registered.

    Attributes:
        path: The file, or its name to be.
        folder: The same, if it is a folder.
        inside: As after ``FILE::``.
        label: Its name in `ckpt ls`.
        open: Opens its bytes.
    """

    path: Path
    folder: Path | None
    inside: str | None
    label: str
    open: Callable[[], AbstractContextManager[ByteSource]]


def _given(ref: Named | InMemory, name: str | None) -> _Given:
    if not isinstance(ref, str | PathLike):
        return _given_in_memory(ref, name)
    file = within(parse_file_ref(fspath(ref)))
    if isinstance(ref, str) and ".py:" in ref and not exists(file.path):
        raise RefError(f"{ref} is a definition and holds no weights", hint=WEIGHTS_HINT)
    folder = file.path if file.path.is_dir() else None
    return _Given(file.path, folder, file.inside, file.path.name, partial(open_path, file.path))


def _given_in_memory(value: InMemory, name: str | None) -> _Given:
    label = name_of(value)
    if not isinstance(value, Mapping) and not is_module(value):
        raise UsageError(
            f"{type(value).__name__}: expected a path, a state_dict or a module",
            hint="a version is registered already; ckpt alias or tag  marks it",
        )
    if name is None and isinstance(value, Mapping):
        raise UsageError("a state_dict has no name", hint='name="net"  names the model')
    path = Path(f"{name or label}.pt")

    @contextmanager
    def opened() -> Iterator[ByteSource]:
        try:
            yield unsaved(value, name=label, file_name=path.name, summed=True)
        except ChecksumError as error:
            hint = "register it between two training steps, or a copy of it"
            raise FormatError(f"{label}: changed while it was registered", hint=hint) from error

    return _Given(path, None, None, label, opened)


def _number(value: Any) -> float:
    """A number, also of a tensor or array of one element."""
    number: float = value.item() if hasattr(value, "item") else value
    return number


def _with_words(
    added: Added, registry: Registry, message: str, metrics: Mapping[str, float] | None
) -> Added:
    """A version that was there already, with the message and metrics that it lacked."""
    said = add_words(registry, added.version.ref, text=message, metrics=metrics)
    return replace(added, version=said.version, noted=said.text, measured=said.metrics)


def _side_files(
    source: ByteSource,
    with_files: Iterable[Path | str | Readable],
    folder: Path | None,
    most: int,
) -> Found:
    """The files to keep beside the weights, by name; also those of their folder."""
    own = [part.name for part in source.parts]
    found = of_folder(folder, own) if folder is not None else Found()
    chosen: list[Readable] = []
    for each in with_files:
        chosen += [each] if isinstance(each, Readable) else named([each])
    names = {each.name for each in chosen}
    files = [*chosen, *(each for each in found.files if each.name not in names)]
    expect_few(files, most)
    try:
        expect_names([*(own if files else ()), *(each.name for each in files)])
    except ValueError as error:
        raise UsageError(f"{source.name}: {error}", hint="rename one of them") from error
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


def _store(checkpoint: Checkpoint, given: _Given, objects: NewObjects, told: Told) -> Manifest:
    """Store the file's tensors and skeleton; the manifest names them."""
    source = checkpoint.source
    holes = _store_tensors(checkpoint, objects, told)
    is_small = source.size <= HASHED_WHOLE
    skeleton = objects.put_skeleton(*skeleton_of(source, checkpoint.spans))
    is_single = len(source.parts) == 1
    return Manifest(
        format=checkpoint.format,
        file_name=source.parts[0].name if is_single else checkpoint_name(given.path),
        file_digest=digest.of_chunks(source.stream(0, source.size)) if is_small else None,
        skeleton=Skeleton(source.size, tuple(holes), skeleton),
        entries=tuple(_digested(checkpoint, holes, objects)),
        inside=given.inside,
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
