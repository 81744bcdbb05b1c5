"""The files of an artifact, fetched into a folder, and the words of ckpt in it.

Laws: a file gets its name only after its size and digest were checked; no name leaves the folder;
an archive gives plain files, and no more bytes than it has itself.
"""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, TypedDict

from ckpt.errors import CkptError, FormatError, IntegrityError, excerpt
from ckpt.io import digest
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Form, expect
from ckpt.io.files import disk_errors, expect_room
from ckpt.registry.events import WORDS, Event, EventLine, Origin, read_event
from ckpt.registry.manifest import Manifest
from ckpt.remote.oci.client import Blob, Client
from ckpt.remote.oci.modelpack import Artifact, is_tar, path_of
from ckpt.remote.oci.packing import SCHEMA
from ckpt.side_files import MOST_FILES, expect_names

_MOST_MANIFEST = 1 << 28  # bytes, as of a remote
_MOST_WORDS = 1 << 26
_MOST_MEMBERS = 10 * MOST_FILES  # of an archive, with its folders
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class OfCkpt:
    """What ckpt wrote about the version that an artifact is.

    Attributes:
        data: The manifest, as it was stored.
        manifest: The same, read.
        origin: Where it comes from; None if the artifact does not say.
        history: Its notes and metrics there.
        definition: The blob with the source of its class, if it is not in the manifest.
    """

    data: bytes
    manifest: Manifest
    origin: Origin | None
    history: tuple[Event, ...]
    definition: Blob | None

    @property
    def digest(self) -> str:
        """The manifest's digest, which names the version."""
        return digest.of_bytes(self.data)


class _Version(TypedDict):
    schema: Annotated[int, Form(f"{SCHEMA}", lambda schema: schema == SCHEMA)]
    origin: Origin
    history: list[EventLine]


def words_of(client: Client, artifact: Artifact) -> OfCkpt | None:
    """What ckpt wrote into an artifact; None if another tool made it.

    Raises:
        IntegrityError: It is damaged, or of a newer ckpt.
    """
    ours, name = artifact.ours, str(client.reference)
    if "manifest" not in ours:
        return None
    data = client.get(ours["manifest"], most=_MOST_MANIFEST)
    manifest = Manifest.from_bytes(data)
    if missing := [key for key in ("made_by", "created") if not manifest.record.get(key)]:
        raise IntegrityError(f"{name}: the record of the version has no {missing[0]!r}")
    origin, history = None, tuple[Event, ...]()
    if "version" in ours:
        origin, history = _version(client.get(ours["version"], most=_MOST_WORDS), name)
        of_it = digest.of_bytes(data)
        history = tuple(each for each in history if each.manifest == of_it and each.did in WORDS)
    return OfCkpt(data, manifest, origin, history, ours.get("definition"))


def _version(data: bytes, name: str) -> tuple[Origin, tuple[Event, ...]]:
    try:
        document = strict_json.parse(data.decode("utf-8"))
        expect(document, _Version, name="")
        return document["origin"], tuple(map(read_event, document["history"]))
    except ValueError as error:
        raise IntegrityError(f"{name}: what ckpt wrote into it is damaged: {error}") from error


def fetch_files(client: Client, artifact: Artifact, folder: Path) -> None:
    """Fetch the files of an artifact into an empty folder.

    Raises:
        FormatError: It has names that no folder can have, or archives of other things than files.
        IntegrityError: A file has another size or digest.
    """
    name = str(client.reference)
    largest = max((blob.size for blob in artifact.files if is_tar(blob)), default=0)
    expect_room(folder, artifact.nbytes + largest)
    names = [path_of(blob) for blob in artifact.files if not is_tar(blob)]
    for blob in artifact.files:
        if is_tar(blob):
            names += _unpacked(client, blob, folder, taken=names)
        else:
            _fetch(client, blob, _place(folder, path_of(blob)))
    if not names:
        raise FormatError(f"{name}: no file of a model in it")


def _fetch(client: Client, blob: Blob, path: Path) -> None:
    with disk_errors(path), path.open("xb") as out:
        client.fetch(blob, out)


def _unpacked(client: Client, blob: Blob, folder: Path, *, taken: Iterable[str]) -> list[str]:
    """Fetch an archive and write its files; their names."""
    packed = folder / f".{digest.short(blob.digest).replace(':', '-')}.tar"
    _fetch(client, blob, packed)
    name = f"{client.reference}: {path_of(blob) or digest.short(blob.digest)}"
    try:
        with (
            disk_errors(packed),
            _Bounded(packed.open("rb", buffering=0)) as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            return _written(archive, folder, [*taken], name)
    except CkptError:
        raise
    except Exception as error:  # Python's parser, fed with foreign bytes
        said = excerpt(str(error) or type(error).__name__)
        raise FormatError(f"{name}: not a tar archive: {said}") from error
    finally:
        packed.unlink()


class _Bounded(BufferedReader):
    """A file that gives no more at once than a header may have: the parser takes what it states."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _CHUNK:
            raise ValueError(f"a header of {size:,} bytes")
        return super().read(size)


def _written(archive: tarfile.TarFile, folder: Path, taken: list[str], name: str) -> list[str]:
    names = list[str]()
    for number, member in enumerate(archive):
        if number >= _MOST_MEMBERS:
            raise FormatError(f"{name}: more than {_MOST_MEMBERS:,} files and folders")
        if member.isdir():
            continue
        path = member.name.removeprefix("./")
        if not member.isreg() or member.sparse is not None:
            raise FormatError(f"{name}: {excerpt(path)!r} is not a plain file")
        names.append(path)
        try:
            expect_names([*taken, *names])
        except ValueError as error:
            raise FormatError(f"{name}: {error}") from error
        _copy(archive, member, _place(folder, path))
    return names


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    with disk_errors(path), path.open("xb") as out:
        while source is not None and (chunk := source.read(_CHUNK)):
            out.write(chunk)
    if path.stat().st_size != member.size:
        raise FormatError(f"{path.name}: the archive is truncated")


def _place(folder: Path, name: str) -> Path:
    """Where a file of this name goes; `expect_names` has accepted the name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
