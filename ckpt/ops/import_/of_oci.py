"""The artifact of an OCI registry: one version, or the files of a model that another tool packed.

Laws: a tag is resolved to a digest once, and everything is of that artifact. What ckpt packed has
here the manifest, and so the digest, that it had there, if its files read as that manifest says.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ckpt.errors import RefError
from ckpt.io.files import Told
from ckpt.io.who import MOST_CHARACTERS
from ckpt.ops.import_.adding import Adding, Read, of_import
from ckpt.ops.import_.imported import Found, Imported, Item
from ckpt.ops.register.adopting import adopt
from ckpt.registry.registry import now
from ckpt.registry.version import Version
from ckpt.remote.objects.parallel import Progress
from ckpt.remote.oci.client import Client
from ckpt.remote.oci.modelpack import Artifact, Described, artifact_of, described
from ckpt.remote.oci.reference import Reference
from ckpt.remote.oci.unpacking import OfCkpt, fetch_files, words_of

_MOST_CONFIG = 4 << 20  # bytes


def import_oci(reference: Reference, source: str, adding: Adding, told: Told) -> Imported:
    """Import an artifact as the next version.

    Args:
        reference: Its address.
        source: As given.
        adding: The import.
        told: Called with the bytes fetched and in all.

    Raises:
        RefError: There is no such artifact.
        FormatError: It is not a model, or not one that can be read.
        IntegrityError: It has other bytes than its manifest names.
        RemoteError: The registry refuses.
    """
    progress = Progress(told, 0)
    with Client(reference, progress.add) as client:
        found = client.manifest(reference.digest or reference.tag)
        if found is None:
            raise RefError(f"{reference}: no such artifact", hint="its tag, or its repository")
        pinned = reference.pinned(found[0])
        artifact = artifact_of(found[1], str(reference))
        progress.total = artifact.nbytes
        item = _imported(client, artifact, pinned, adding)
    remarks = [f"{reference} is {found[0]}"] if reference.tag else []
    remarks += [f"left out: {each}" for each in artifact.left]
    return Imported(
        source,
        adding.model,
        (item,),
        remarks=tuple(remarks),
        resolved=str(pinned),
        dry_run=adding.dry_run,
        created_registry=adding.created_registry,
    )


def _imported(client: Client, artifact: Artifact, pinned: Reference, adding: Adding) -> Item:
    name = client.reference.tag or pinned.digest[:15]
    words = words_of(client, artifact)
    if words is not None and adding.opaque != "drop":  # which makes other bytes of it
        return _of_ckpt(client, artifact, words, pinned, adding, name)
    about = described(client.get(artifact.config, most=_MOST_CONFIG), str(client.reference))
    item = Item(name, "new", about.created)
    if version := _known(adding, pinned):
        return adding.item_of(version, name, about.created)
    if adding.dry_run:
        return replace(item, version=adding.plan(name))
    with _fetched(client, artifact) as path:
        found = _found(path, client.reference, pinned, about, name)
        read = adding.read(found)
        return adding.add(found, read) if isinstance(read, Read) else read


def _of_ckpt(
    client: Client,
    artifact: Artifact,
    words: OfCkpt,
    pinned: Reference,
    adding: Adding,
    name: str,
) -> Item:
    """Import what ckpt packed, with its manifest."""
    created = words.manifest.record["created"]
    known = adding.known_item(name, created, words.manifest.content_digest)
    if known is not None:
        return known
    if adding.dry_run:
        return Item(name, "new", created, adding.plan(name))
    with _fetched(client, artifact) as path:
        blob = words.definition
        added = adopt(
            path,
            adding.registry,
            adding.model,
            words.data,
            history=words.history,
            origin=words.origin,
            name=str(pinned),
            definition=client.get(blob, most=_MOST_CONFIG) if blob else None,
            opaque=adding.opaque,
        )
    adding.created_registry = adding.created_registry or added.created_registry
    return Item(name, "new" if added.new else "known", created, added.version.label)


@contextmanager
def _fetched(client: Client, artifact: Artifact) -> Iterator[Path]:
    """The files of an artifact in a folder, while the block runs."""
    with TemporaryDirectory(prefix="ckpt-import-") as folder:
        path = Path(folder) / client.reference.base  # by which registering calls it
        path.mkdir()
        fetch_files(client, artifact, path)
        yield path


def _known(adding: Adding, pinned: Reference) -> Version | None:
    """The version that was made of this artifact before; an earlier import notes its digest."""
    for version in adding.known.every_version():
        if version.made_by.startswith("import oci"):
            source = adding.registry.manifest(version).record.get("source")
            if isinstance(source, dict) and source.get("oci") == str(pinned):
                return version
    return None


def _found(
    path: Path, reference: Reference, pinned: Reference, about: Described, name: str
) -> Found:
    """The folder as a checkpoint that may become a version."""
    source = {"oci": str(pinned), **({"tag": reference.tag} if reference.tag else {})}
    source |= {"revision": about.revision} if about.revision else {}
    author = " ".join(about.authors.split())[:MOST_CHARACTERS]
    created = about.created or now()
    return Found(
        name,
        _alone(path),
        created,
        {
            **of_import(source, now()),
            **({"by": {"author": author, "host": ""}} if author else {}),
        },
        f"import {reference}",
        message=about.description,
    )


def _alone(folder: Path) -> Path:
    """The only file of a folder; the folder, if there are several."""
    files = [*folder.iterdir()]
    return files[0] if len(files) == 1 and files[0].is_file() else folder
