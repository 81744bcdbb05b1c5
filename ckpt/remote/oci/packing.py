"""A version as an artifact: its files are layers, and so are its manifest and words.

Laws: the same version with the same notes and metrics is the same artifact, wherever it is packed;
the tag is given last, and never taken from something else unless that is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.formats.opaque import OpaqueWord, expect_harmless
from ckpt.io import digest
from ckpt.io.files import Told, untold
from ckpt.opened.states import OpenedVersion
from ckpt.registry.events import WORDS, Origin, about, event_line
from ckpt.registry.manifest import canonical
from ckpt.remote.elsewhere.web import Body
from ckpt.remote.objects.parallel import Progress
from ckpt.remote.oci import modelpack
from ckpt.remote.oci.client import Blob, Client
from ckpt.remote.oci.reference import Reference
from ckpt.side_files import expect_names
from ckpt.writing.written import Written

SCHEMA = 1  # of the layer `version`


@dataclass(frozen=True, slots=True)
class _Packed:
    """A blob, and its bytes."""

    blob: Blob
    read: Body


@dataclass(frozen=True, slots=True)
class _Artifact:
    """The blobs of an artifact, its configuration last, and the manifest that names them."""

    blobs: tuple[_Packed, ...]
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest.of_bytes(self.manifest)

    @property
    def nbytes(self) -> int:
        return sum(each.blob.size for each in self.blobs)


def pack(
    opened: OpenedVersion,
    reference: Reference,
    *,
    replace_out: bool = False,
    opaque: OpaqueWord | None = None,
    told: Told = untold,
) -> Written:
    """Write a version to a registry of artifacts, under a tag.

    Args:
        opened: The version.
        reference: Where; with a tag and no digest.
        replace_out: Whether the tag may be taken from another artifact.
        opaque: ``keep`` for a version that runs code when it is unpickled.
        told: Called with the bytes sent and in all.

    Raises:
        UsageError: The tag names something else.
        IntegrityError: An object of the version is missing or damaged; the tag stays as it is.
        RemoteError: The registry refuses.
    """
    if reference.digest:
        hint = f"-o {reference.place}:{reference.tag or opened.version.label}"
        raise UsageError(f"{reference}: expected a tag alone", hint=hint)
    if opened.manifest.format.startswith("torch"):
        expect_harmless(opened.checkpoint, opaque)
    artifact = _artifact(opened, str(reference))
    with Client(reference, Progress(told, artifact.nbytes).add) as client:
        was_there = _is_there(client, artifact.digest, replace_out=replace_out)
        sent = 0
        if not was_there:
            sent = sum(
                each.blob.size for each in artifact.blobs if client.send(each.blob, each.read)
            )
            client.tag(reference.tag, artifact.manifest)
    return Written(
        Path(reference.base),
        artifact.nbytes,
        files=len(artifact.blobs) - 1,
        url=str(reference),
        sent=sent,
        digest=artifact.digest,
        was_there=was_there,
    )


def _is_there(client: Client, wanted: str, *, replace_out: bool) -> bool:
    """Whether the tag names this artifact already."""
    reference = client.reference
    found = client.manifest(reference.tag)
    if found is not None and found[0] != wanted and not replace_out:
        raise UsageError(
            f"{reference} already exists, and is something else: {digest.short(found[0])}",
            hint="name another tag; --force  moves this one",
        )
    return found is not None and found[0] == wanted


def _artifact(opened: OpenedVersion, name: str) -> _Artifact:
    layers = [*_files(opened), *_words(opened)]
    blobs = [each.blob for each in layers]
    try:
        expect_names(map(modelpack.path_of, blobs))
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error
    version, manifest = opened.version, opened.manifest
    data = modelpack.config_of(
        version.model, version.label, manifest.format, manifest.record, blobs
    )
    config = _Packed(Blob(modelpack.CONFIG, digest.of_bytes(data), len(data)), lambda: [data])
    return _Artifact((*layers, config), modelpack.manifest_of(config.blob, blobs))


def _files(opened: OpenedVersion) -> Iterator[_Packed]:
    """The files of a version, as they were registered."""
    source, whole = opened.source, opened.manifest.file_digest
    for part in source.parts:
        read = partial(source.stream, part.offset, part.nbytes)
        known = whole if len(source.parts) == 1 else None
        found = known or digest.of_chunks(read())
        yield _Packed(modelpack.weights(part.name, found, part.nbytes), read)
    for file in opened.manifest.side_files:
        read = partial(source.stream_object, file.digest, file.nbytes)
        yield _Packed(modelpack.beside(file.name, file.digest, file.nbytes), read)


def _words(opened: OpenedVersion) -> Iterator[_Packed]:
    """What ckpt needs to have the same version again, and to prove it."""
    version, registry = opened.version, opened.registry
    data = registry.store.manifest_bytes(version.manifest)
    yield _of_bytes("manifest", "manifest", data)
    index = registry.index()
    past = about(index.model(version.model).log, version.manifests)
    document = {
        "schema": SCHEMA,
        "origin": Origin(registry=index.id, version=version.ref, manifest=version.manifest),
        "history": [event_line(event) for event in past if event.did in WORDS],
    }
    yield _of_bytes("version", "version.json", canonical(document))
    if source := opened.manifest.record.get("definition"):
        read = partial(opened.source.stream_object, source["digest"], source["nbytes"])
        blob = modelpack.ours("definition", "definition.py", source["digest"], source["nbytes"])
        yield _Packed(blob, read)


def _of_bytes(kind: str, name: str, data: bytes) -> _Packed:
    return _Packed(modelpack.ours(kind, name, digest.of_bytes(data), len(data)), lambda: [data])
