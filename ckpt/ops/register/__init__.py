"""Register: add a file, or what is in memory, as the next version of a model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from ckpt.errors import UsageError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import RUNS_CODE, OpaqueWord, expect_harmless, kind_of_file, without_opaque
from ckpt.formats.paths import checkpoint_name
from ckpt.io.files import Told, untold
from ckpt.io.sources import OpenSource
from ckpt.opened.named import Named
from ckpt.ops.register.curves import recorded_curves
from ckpt.ops.register.given import Given, InMemory, opened
from ckpt.ops.register.storing import compared, store
from ckpt.refs import SUFFIXES, expect_new_name, several
from ckpt.registry.adding import Added, add_manifest
from ckpt.registry.adding.labels import labels
from ckpt.registry.later_words import add_words
from ckpt.registry.manifest import Manifest, read_record
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.store.new_objects import NewObjects, OnlyDigests
from ckpt.registry.version import Version, parent_record
from ckpt.side_files import (
    MOST_BYTES,
    Found,
    Readable,
    expect_few,
    expect_names,
    named,
)


@dataclass(frozen=True, slots=True)
class Content:
    """What registering a file would give.

    Attributes:
        digest: Of its content; equal for equal bytes.
        kind: What it holds instead of a model: ``the state of an optimizer``.
        dropped: The opaque objects of the file that the version would not hold.
    """

    digest: str
    kind: str | None
    dropped: tuple[str, ...]


def content_of(path: Path, *, opaque: OpaqueWord | None = None, told: Told = untold) -> Content:
    """Read a file or folder as `register` does, and write nothing.

    Raises:
        CkptError: As of `register`.
    """
    with opened(path, None) as given:
        checkpoint, dropped = _checkpoint(given, opaque)
        expect_harmless(checkpoint, opaque)
        beside = _side_files(given, (), of_its_folder=True, most=MOST_BYTES)
        manifest = store(checkpoint, given, beside.files, OnlyDigests(), told)
        return Content(manifest.content_digest, kind_of_file(checkpoint), tuple(dropped))


def register(
    ref: Named | InMemory,
    *,
    registry: InRegistry | None = None,
    name: str | None = None,
    message: str = "",
    metrics: Mapping[str, float] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    made_by: str | None = None,
    record: Mapping[str, Any] | None = None,
    definition_source: str | None = None,
    parent: str | None = None,
    alias: str | None = None,
    tags: str | Iterable[str] = (),
    opaque: OpaqueWord | None = None,
    with_files: Path | str | Readable | Iterable[Path | str | Readable] = (),
    folder_files: bool = True,
    most: int = MOST_BYTES,
    told: Told = untold,
) -> Added:
    """Add a file, or what is in memory, as the next version of a model, unless it is there already.

    If a version holds the same bytes, a message and metrics that it lacks are added to that one.
    A state_dict goes into the store as `torch.save` would write it, without a file in between: its
    version is exported as a ``.pt`` file. A file elsewhere is read by ranges, and compared with the
    SHA-256 that its server states.

    Args:
        ref: A path or URL, with ``::model`` for one state_dict of a training checkpoint; or a
            state_dict, a training checkpoint, or a module, whose state_dict is registered.
        registry: The registry; None finds it as the command line does.
        name: The model; None takes the file's name without its suffix, or the module's class.
        message: The version's message.
        metrics: E.g. ``{"accuracy": 0.9921}``.
        curves: A number for each epoch, by quantity, e.g. ``{"loss": [0.5, 0.2], "holdout_loss":
            [0.6, 0.3]}``, for `ckpt.plot`; a version that is there already does not get them.
        made_by: How it was made, a few words for `ckpt ls`.
        record: More to keep: parent, plan, training config, environment. Its ``created`` and ``by``
            replace the time and author of the registration, for what was made elsewhere before.
        definition_source: Source text of the definition that it fits.
        parent: The version that it was made from, e.g. by fine-tuning.
        alias: An alias that points to the version from the moment on that it is there.
        tags: Tags that it has from then on, one or several.
        opaque: ``keep`` stores objects of unknown classes byte for byte, ``drop`` stores the file
            without them; None refuses those that run code when unpickled.
        with_files: Files and folders to keep beside the weights, one or several, such as
            ``config.json``.
        folder_files: Whether the small files of a checkpoint's folder are kept too, if `ref` names
            the folder; a file of `with_files` goes before one of the same name.
        most: The limit of all these, in bytes.
        told: Called with the bytes done and the bytes in all.

    Raises:
        FormatError: The file is not a readable checkpoint, or does not match its own checksums.
        IntegrityError: A file elsewhere has another SHA-256 than its server states.
        UsageError: A value of the record is one that readers would refuse, or the files beside
            the weights are too large or have names that collide; nothing is stored.

    Example:
        >>> added = ckpt.register(net, name="digits", metrics={"accuracy": 0.992}, alias="prod")
        >>> added.version.ref, added.new
        ('digits:v1', True)
        >>> ckpt.register(net.state_dict(), name="digits").new
        False
    """
    metrics = {key: _number(value) for key, value in (metrics or {}).items()}
    registry = Registry.of(registry)
    wanted = labels(alias, tags)
    origin = None if parent is None else registry.version(parent)
    with opened(ref, name) as given:
        model = model_name(given.path) if name is None else expect_new_name(name)
        how = f"register {given.label}" if made_by is None else made_by
        notes = {"model": model, "message": message, "metrics": metrics, **(record or {})}
        notes |= recorded_curves({} if curves is None else curves)
        notes |= {"source": given.origin} if given.origin else {}
        read_record({**notes, "made_by": how})  # before gigabytes are stored
        checkpoint, dropped = _checkpoint(given, opaque)
        notes |= expect_harmless(checkpoint, opaque)
        how += " --keep-opaque" if RUNS_CODE in notes else ""
        beside = _side_files(given, several(with_files), folder_files, most)
        rights = reduce(and_, (each.rights for each in beside.files), given.source.rights)
        with registry.store.writing():
            objects = NewObjects(registry.store, rights)
            notes |= _store_definition(definition_source, objects)
            manifest = store(checkpoint, given, beside.files, objects, told)
            manifest = _with_notes(manifest, notes, origin, objects)
            if given.origin:
                manifest = compared(manifest, registry.store, given)
            if isinstance(given.source, OpenSource):
                given.source.expect_unchanged()
            new = objects.new_bytes
            added = add_manifest(
                registry, model, manifest, new_bytes=new, made_by=how, rights=rights, labels=wanted
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
    given: Given, with_files: Iterable[Path | str | Readable], of_its_folder: bool, most: int
) -> Found:
    """The files to keep beside the weights, by name."""
    own = [part.name for part in given.source.parts]
    found = given.beside() if of_its_folder else Found()
    chosen: list[Readable] = []
    for each in with_files:
        chosen += [each] if isinstance(each, Readable) else named([each])
    names = {each.name for each in chosen}
    files = [*chosen, *(each for each in found.files if each.name not in names)]
    expect_few(files, most)
    try:
        expect_names([*(own if files else ()), *(each.name for each in files)])
    except ValueError as error:
        raise UsageError(f"{given.source.name}: {error}", hint="rename one of them") from error
    return Found(tuple(sorted(files, key=lambda each: each.name)), found.left)


def _with_notes(
    manifest: Manifest, notes: dict[str, Any], origin: Version | None, objects: NewObjects
) -> Manifest:
    if origin is not None:
        notes["parent"] = parent_record(origin, manifest.tensors_digest)
    return replace(manifest, record=notes, inline=objects.inline)


def _checkpoint(given: Given, opaque: OpaqueWord | None) -> tuple[Checkpoint, Sequence[str]]:
    checkpoint = open_checkpoint(given.source, inside=given.inside)
    return without_opaque(checkpoint, given.inside) if opaque == "drop" else (checkpoint, ())


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


def _store_definition(source: str | None, objects: NewObjects) -> dict[str, Any]:
    if source is None:
        return {}
    data = source.encode("utf-8")
    return {"definition": {"digest": objects.put(lambda: [data], len(data)), "nbytes": len(data)}}
