"""Copy: a version becomes the next one of a model in another registry.

Its manifest is copied byte for byte, so its digest names it in both, and its parents are found
there if they are copied too. Its notes and metrics go with it; signatures, which name the model and
the number here, do not.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ckpt.io.files import Told, untold
from ckpt.printed import Printed
from ckpt.refs import expect_new_name
from ckpt.registry.adding import adopt_version
from ckpt.registry.events import WORDS, Event, Origin, about
from ckpt.registry.history.newest import newest
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version


@dataclass(frozen=True, slots=True, repr=False)
class Copied(Printed):
    """The result of a copy.

    Attributes:
        source: The version that was copied.
        folder: The folder of the other registry, as given.
        version: The version there.
        new: Whether it was added; false if the model had the same bytes already.
        created_registry: The folder of the registry that was created for it, if one was.
    """

    VIEW: ClassVar = "ckpt.show.copy:copied_text"

    source: Version
    folder: Path
    version: Version
    new: bool
    created_registry: Path | None = None


def copy(
    ref: str,
    folder: Path | str,
    *,
    name: str | None = None,
    registry: InRegistry | None = None,
    told: Told = untold,
) -> Copied:
    """Copy a version into another registry, unless the model there has the same bytes.

    Args:
        ref: The version.
        folder: The folder of the other registry; without one, the registry is created there.
        name: The model there; None for the same name.
        registry: The registry of `ref`; None finds it as the command line does.
        told: Called with the bytes done and the bytes in all.

    Raises:
        RefError: There is no such version or folder.
        IntegrityError: Its bytes are damaged; nothing is added then.
    """
    registry, other = Registry.of(registry), Registry(Path(folder).absolute())
    index = registry.index()
    source = index.find(ref)
    model = source.model if name is None else expect_new_name(name)
    if twin := other.index().same_content(model, source.content):
        other.index_file.sync()
        return Copied(source, Path(folder), newest(other.index(), twin), new=False)
    origin = Origin(registry=index.id, version=source.ref, manifest=source.manifest)
    past = about(index.model(source.model).log, source.manifests)
    history = [event for event in past if event.did in (*WORDS, "copy")]
    history.append(Event(did="copy", manifest=source.manifest, origin=origin))
    with other.store.writing():
        nbytes = _copy_objects(registry, other, source, told)
        draft = replace(
            source, model=model, number=0, new_bytes=nbytes, restored="", renumbered="", also=()
        )
        added = adopt_version(other, draft, history, registry.store)
    version = newest(other.index(), added.version)
    return Copied(source, Path(folder), version, added.new, added.created_registry)


def _copy_objects(registry: Registry, other: Registry, source: Version, told: Told) -> int:
    """Copy the objects of a version, verified; the bytes that were new."""
    opened = registry.source(source)
    objects = opened.manifest.objects()
    total, done, new = sum(nbytes for nbytes, _ in objects.values()), 0, 0
    for digest, (nbytes, _) in objects.items():
        chunks = opened.stream_object(digest, nbytes)
        put = other.store.put(chunks, registry.store.rights(digest, "objects"))
        new += nbytes if put.new else 0
        done += nbytes
        told(done, total)
    return new
