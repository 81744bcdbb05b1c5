"""Restore: put removed versions back into the list, under their numbers.

A version that the list lost to an older `registry.json` comes back by its digest, as long as `gc`
has not deleted its data; it gets another number if that was given out again. Whatever was changed
since stays. Tags go with a version when it is removed; `ckpt undo` of the removal brings them back,
too.
"""

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from ckpt.errors import IntegrityError, RefError
from ckpt.printed import Printed
from ckpt.refs import DigestRef, VersionRef, expect_no_path, is_version, several, version_ref
from ckpt.registry.index import Index, Model
from ckpt.registry.later_words import expect_short
from ckpt.registry.numbers import readded
from ckpt.registry.registry import InRegistry, Registry, now
from ckpt.registry.store.verified import REPAIR
from ckpt.registry.version import Version, number_of, read_version


@dataclass(frozen=True, slots=True, repr=False)
class Restored(Printed):
    """The versions that were asked for.

    Attributes:
        versions: Removed before, and in the list again.
        present: In the list already.
        before: The label that a version of `versions` had, by its ref, if it has another one now.
    """

    VIEW: ClassVar = "ckpt.show.restore:restored_text"

    versions: tuple[Version, ...]
    present: tuple[Version, ...]
    before: Mapping[str, str]


def restore(
    refs: str | Iterable[str], *, message: str = "", registry: InRegistry | None = None
) -> Restored:
    """Restore removed versions, all or none.

    Args:
        refs: ``net:v3``, or the beginning of a digest, one or several.
        message: Why, for their history.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no registry, or no such version, or gc has deleted it.
        IntegrityError: The manifest or an object is missing, or the manifest is damaged.
    """
    registry, refs = Registry.of(registry), several(refs)
    expect_short(message)
    done: dict[str, Version] = {}
    present: dict[str, Version] = {}
    before: dict[str, str] = {}

    def restored(index: Index) -> Index:
        found = [_found(registry, index, ref) for ref in refs]
        stored = {each.digest for each in registry.store.objects()}
        for version in {(each.ref, each.manifest): each for each in found}.values():
            model = index.models.get(version.model) or Model(name=version.model)
            is_removed = model.removed.get(version.number) == version
            twin = None if is_removed else index.same_content(version.model, version.content)
            if twin is not None:  # itself, or the same bytes registered again
                present[twin.ref] = twin
                continue
            _expect_stored(registry, version, stored)
            if is_removed:
                index = index.with_model(model.restored(version.number, at=now()))
                back = index.models[version.model].versions[version.number]
            else:
                index, back = readded(index, version, at=now())
            done[back.ref] = back
            if back.label != version.label:
                before[back.ref] = version.label
        return index

    registry.expect_there()  # before the lock creates a folder
    with registry.store.writing():  # no gc meanwhile, which does not know yet what is needed again
        registry.index_file.commit(restored, lambda: "restore " + ", ".join(done), message=message)
    return Restored(tuple(done.values()), tuple(present.values()), before)


def _found(registry: Registry, index: Index, ref: str) -> Version:
    """A version, removed or not, or lost."""
    match version_ref(ref):
        case DigestRef(prefix):
            found = [
                version
                for version in index.every_version()
                if any(name.startswith(prefix) for name in (*version.manifests, version.file or ""))
            ]
            found = found or _lost(registry, prefix)
            if len(found) != 1:
                names = ", ".join(version.ref for version in found)
                raise RefError(f"{prefix} names {names or 'no version, and no removed one'}")
            return found[0]
        case VersionRef(model=name, label=label) if is_version(label):
            model = index.model(name)
            number = number_of(label)
            if found_here := model.removed.get(number) or model.versions.get(number):
                return found_here
            raise _unknown(model, label)
    expect_no_path(ref)  # a file without a suffix, which could be a model
    raise RefError(f"{ref} names no removed version", hint="e.g. net:v3, or sha256:…")


def _lost(registry: Registry, prefix: str) -> list[Version]:
    """The versions of the reflog whose manifests are stored; the newest line of each."""
    stored = {each.digest for each in registry.store.manifests()}
    found: dict[str, Version] = {}
    for entry in registry.index_file.reflog.entries():
        for ref, line in entry.versions.items():
            model, _, label = ref.rpartition(":")
            with suppress(ValueError, TypeError, AttributeError):
                version = read_version(model, number_of(label), line)
                if version.manifest in stored and version.manifest.startswith(prefix):
                    found[version.manifest] = version
    return list(found.values())


def _unknown(model: Model, label: str) -> RefError:
    removed = ", ".join(version.label for version in model.removed.values())
    hint = f"removed and still there: {removed}" if removed else "no removed version is still there"
    gone = number_of(label) < model.next_number
    return RefError(
        f"{model.name}:{label}: {'deleted by gc' if gone else 'no such version'}", hint=hint
    )


def _expect_stored(registry: Registry, version: Version, stored: Set[str]) -> None:
    """Refuse a version whose objects are not `stored` any more; they are not read."""
    needed = registry.manifest(version).objects()
    for name in needed.keys() - stored:
        raise IntegrityError(f"{version.ref}: object of {needed[name][1]} is missing", hint=REPAIR)
