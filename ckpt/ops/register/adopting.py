"""Adopt a version from elsewhere by its manifest and its files, which prove each other.

Law: the version has the digest that it had there, and all its objects are here, read from its files
as a registration reads them; whatever the manifest says about its files is compared with that.
"""

from collections.abc import Iterable
from pathlib import Path

from ckpt.errors import IntegrityError
from ckpt.formats import open_checkpoint
from ckpt.formats.opaque import OpaqueWord, expect_harmless
from ckpt.formats.paths import open_path
from ckpt.io import digest
from ckpt.io.files import is_base_name, untold
from ckpt.io.rights import EVERYBODY
from ckpt.ops.register.given import Given
from ckpt.ops.register.storing import store
from ckpt.registry.adding import Added, adopt_version, draft_of
from ckpt.registry.events import Event, Origin
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.new_objects import NewObjects
from ckpt.side_files import readable


def adopt(
    folder: Path,
    registry: Registry,
    model: str,
    data: bytes,
    *,
    name: str,
    history: Iterable[Event] = (),
    origin: Origin | None = None,
    definition: bytes | None = None,
    opaque: OpaqueWord | None = None,
) -> Added:
    """Add a version by its manifest, unless the model has the same bytes.

    Args:
        folder: Its files.
        registry: Where it is added.
        model: The model.
        data: Its manifest, as it was stored.
        name: Where it comes from, for messages and its history.
        history: Its events there.
        origin: The registry and the version that it was.
        definition: The source of its class, if the manifest does not hold that.
        opaque: ``keep`` for a version that runs code when it is unpickled.

    Raises:
        IntegrityError: The files are not those that the manifest describes; nothing is added.
        FormatError: They are not a readable checkpoint.
    """
    manifest, stored = Manifest.from_bytes(data), digest.of_bytes(data)
    event = Event(did="copy", manifest=stored, text=name, origin=origin)
    with registry.store.writing():
        objects = NewObjects(registry.store, EVERYBODY)
        if definition is not None:
            objects.put(lambda: [definition], len(definition))
        _store_files(folder, manifest, objects, name, opaque)
        _expect_all(manifest, objects, name)
        put = registry.store.put_fetched(data, stored)
        new = objects.new_bytes + (put.nbytes if put.new else 0)
        content, tensors = manifest.content_digest, manifest.tensors_digest
        draft = draft_of(model, manifest, stored, content, tensors, new)
        return adopt_version(registry, draft, (*history, event), registry.store)


def _store_files(
    folder: Path, manifest: Manifest, objects: NewObjects, name: str, opaque: OpaqueWord | None
) -> None:
    """Store what the files hold, which must be what the manifest says."""
    first = manifest.names[0]
    if not is_base_name(first):
        raise IntegrityError(f"{name}: {first!r} is not the name of a file")
    wanted = [first, *(file.name for file in manifest.side_files)]
    if missing := [each for each in wanted if not (folder / each).is_file()]:
        raise IntegrityError(f"{name}: the file {missing[0]!r} of the version is missing")
    with open_path(folder / first) as source:
        checkpoint = open_checkpoint(source, inside=manifest.inside)
        expect_harmless(checkpoint, opaque)
        files = [readable(folder / file.name, file.name) for file in manifest.side_files]
        given = Given(source, folder / first, manifest.inside, first)
        found = store(checkpoint, given, files, objects, untold)
    if found.content_digest != manifest.content_digest:
        raise IntegrityError(
            f"{name}: its files are not those of its manifest",
            hint="to have the files alone:  fetch them with another tool, and  ckpt register",
        )


def _expect_all(manifest: Manifest, objects: NewObjects, name: str) -> None:
    """Make sure that the store has every object that the manifest needs as one of its own."""
    for each, (_, what) in manifest.objects().items():
        if objects.store.has(each):
            continue
        if (data := objects.inline.get(each)) is None:
            raise IntegrityError(f"{name}: object {digest.short(each)} of {what} is missing")
        objects.store.put([data], EVERYBODY, name=each)
