"""Add a version to a registry: its manifest to the store, then its line to the index.

Law: a model holds the same content under one number; what is there already is answered, not added.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ckpt.io.rights import Rights
from ckpt.io.who import By, who
from ckpt.printed import Printed
from ckpt.refs import expect_name
from ckpt.registry.adding.labels import NO_LABELS, Labels
from ckpt.registry.events import Event, joined
from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest, read_record
from ckpt.registry.registry import Registry, now
from ckpt.registry.seen import saw
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.version import Version, parent_record


@dataclass(frozen=True, slots=True, repr=False)
class Added(Printed):
    """The result of adding a version.

    Attributes:
        version: The version that holds the bytes.
        new: Whether it was added; false if the model held the same bytes already.
        created_registry: The folder of the registry that was created for it, if one was.
        dropped: The opaque objects of the file that it does not hold.
        noted: The message that was added to a version that held the same bytes already.
        measured: The metrics that were added to it.
        labels: The alias and tags that it was given.
        side_files: The names of the files that were registered beside the weights.
        left: What else the folder holds, and was not registered.
        kind: What the file holds instead of a model: ``the state of an optimizer``.
    """

    VIEW: ClassVar = "ckpt.show.register:added_text"

    version: Version
    new: bool
    created_registry: Path | None = None
    dropped: tuple[str, ...] = ()
    noted: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    labels: Labels = NO_LABELS
    side_files: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    kind: str | None = None


def add_manifest(
    registry: Registry,
    model: str,
    manifest: Manifest,
    *,
    new_bytes: int,
    made_by: str,
    rights: Rights,
    labels: Labels = NO_LABELS,
) -> Added:
    """Add the next version of `model`; the manifest's objects must be stored already.

    Args:
        registry: It; created if it does not exist.
        model: The model's name.
        manifest: The manifest; its record has the version's metrics and message, and the time
            and author if these are not now and who runs this.
        new_bytes: Bytes of the objects that were added to the store for it.
        made_by: How it was made, a few words.
        rights: Who may read its source, and so the manifest.
        labels: Its alias and tags.

    Returns:
        The version; not new if the model has the same content already, so nothing is added.
    """
    expect_name(model)
    content = manifest.content_digest
    known = registry.index().same_content(model, content)
    if known and not labels:
        registry.index_file.sync()
        return Added(known, new=False)
    if known:
        return _add_draft(registry, known, who(), labels)
    by, tensors = who(), manifest.tensors_digest
    usual = {"created": now(), "by": by}
    record = {**usual, "model": model, **manifest.record, "made_by": made_by}
    manifest = replace(manifest, record=_with_parent(registry, record, model, tensors))
    created_registry = None if registry.exists else registry.create()
    stored = registry.store.put_manifest(manifest, rights)
    new_bytes += stored.nbytes if stored.new else 0
    draft = draft_of(model, manifest, stored.digest, content, tensors, new_bytes)
    return replace(_add_draft(registry, draft, by, labels), created_registry=created_registry)


def adopt_version(
    registry: Registry, draft: Version, history: Iterable[Event], store: ObjectStore
) -> Added:
    """Add a version of another registry, whose objects must be stored here already.

    Args:
        registry: The registry that gets it.
        draft: Its line, with the bytes of the objects that are new here.
        history: Its events there, and drafts of new ones.
        store: The store of the other registry, which has the manifest.
    """
    expect_name(draft.model)
    created_registry = None if registry.exists else registry.create()
    stored = registry.store.copy_manifest(draft.manifest, store)
    draft = replace(draft, new_bytes=draft.new_bytes + (stored.nbytes if stored.new else 0))
    added = _add_draft(registry, draft, who(), NO_LABELS, tuple(history))
    return replace(added, created_registry=created_registry)


def _with_parent(
    registry: Registry, given: Mapping[str, Any], model: str, tensors: str
) -> dict[str, Any]:
    """The record with the fields of the index line, so that a lost index can be rebuilt.

    A version of the same tensors becomes the parent if the record names none.
    """
    record = read_record(given)
    twin = registry.index().same_tensors(model, tensors)
    if twin and "parent" not in record:
        record["parent"] = parent_record(twin, tensors)
    return record


def _add_draft(
    registry: Registry, draft: Version, by: By, labels: Labels, history: tuple[Event, ...] = ()
) -> Added:
    """Commit a version under the next number, unless its content is there already."""
    added: list[Added] = []

    def with_draft(index: Index) -> Index:
        version = index.same_content(draft.model, draft.content)
        is_new = version is None
        if version is None:
            version = replace(draft, number=index.next_number(draft.model))
            index = index.with_version(version)
        added.append(Added(version, new=is_new, labels=labels))
        model = index.models[version.model]
        if history and is_new:
            past = joined(model.log, (event for event in history if event.at))
            new = (replace(e, version=version.label) for e in history if not e.at)
            index = index.with_model(model := replace(model, log=(*past, *new)))
        labelled = labels.on(model, version.number)
        return index if labelled is model else index.with_model(labelled)

    registry.index_file.commit(with_draft, f"{draft.made_by} as {draft.model}", by=by)
    if added[-1].new:
        saw(registry.folder, added[-1].version)
    return added[-1]


def draft_of(
    model: str, manifest: Manifest, stored: str, content: str, tensors: str, new_bytes: int
) -> Version:
    """The line of a version that has no number yet.

    Args:
        model: Its model.
        manifest: Its manifest, whose record says how it was made, and when.
        stored: The digest of that.
        content: The manifest's `content_digest`.
        tensors: Its `tensors_digest`.
        new_bytes: Bytes of the objects that were added for it.
    """
    record = manifest.record
    return Version(
        model=model,
        number=0,
        manifest=stored,
        content=content,
        file=manifest.file_digest,
        size=manifest.skeleton.size,
        keys=len(manifest.entries),
        new_bytes=new_bytes,
        made_by=record["made_by"],
        created=record["created"],
        metrics=record.get("metrics", {}),
        message=record.get("message", ""),
        tensors=tensors,
    )
