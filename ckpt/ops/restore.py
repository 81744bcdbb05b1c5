"""Restore: put removed versions back into the list, under their numbers.

Whatever was changed since stays. Tags go with a version when it is removed; `ckpt undo` of the
removal brings them back, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ckpt.errors import IntegrityError, RefError
from ckpt.refs import DefinitionRef, DigestRef, VersionRef, is_version, parse_ref
from ckpt.registry.index import Index, Model, Version, number_of
from ckpt.registry.registry import Registry, now
from ckpt.registry.store.objects import REPAIR


@dataclass(frozen=True, slots=True)
class Restored:
    """The versions that were asked for.

    Attributes:
        versions: Removed before, and in the list again.
        present: In the list already.
    """

    versions: tuple[Version, ...]
    present: tuple[Version, ...]


def restore(refs: Iterable[str], *, registry: Registry | None = None) -> Restored:
    """Restore removed versions, all or none.

    Args:
        refs: ``net:v3``, or the beginning of a digest.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version, or gc has deleted it.
        IntegrityError: The manifest or an object is missing, or the manifest is damaged.
    """
    registry, refs = registry or Registry(), tuple(refs)
    done: dict[str, Version] = {}
    present: dict[str, Version] = {}

    def restored(index: Index) -> Index:
        for version in [_found(index, ref) for ref in refs]:
            model = index.model(version.model)
            if version.number in model.versions:
                present.setdefault(version.ref, version)
                continue
            _expect_stored(registry, version)
            model = model.restored(version.number, at=now())
            done[version.ref] = model.versions[version.number]
            index = index.with_model(model)
        return index

    registry.index_file.commit(restored, lambda: "restore " + ", ".join(done))
    kept = (version for ref, version in present.items() if ref not in done)
    return Restored(tuple(done.values()), tuple(kept))


def _found(index: Index, ref: str) -> Version:
    """A version, removed or not."""
    match parse_ref(ref):
        case DigestRef(prefix):
            found = [
                version
                for version in index.every_version()
                if any(name.startswith(prefix) for name in (*version.manifests, version.file or ""))
            ]
            if len(found) != 1:
                names = ", ".join(version.ref for version in found)
                raise RefError(f"{prefix} names {names or 'no version, and no removed one'}")
            return found[0]
        case (
            VersionRef(model=name, label=label) | DefinitionRef(version=VersionRef(name, label))
        ) if is_version(label):
            model = index.model(name)
            number = number_of(label)
            if found_here := model.removed.get(number) or model.versions.get(number):
                return found_here
            raise _unknown(model, label)
    raise RefError(f"{ref} names no removed version", hint="e.g. net:v3, or sha256:…")


def _unknown(model: Model, label: str) -> RefError:
    removed = ", ".join(version.label for version in model.removed.values())
    hint = f"removed and still there: {removed}" if removed else "no removed version is still there"
    gone = number_of(label) < model.next_number
    return RefError(
        f"{model.name}:{label}: {'deleted by gc' if gone else 'no such version'}", hint=hint
    )


def _expect_stored(registry: Registry, version: Version) -> None:
    """Refuse a version whose bytes are not there any more; they are not read."""
    needed = registry.manifest(version).objects()
    missing = needed.keys() - {each.digest for each in registry.store.objects()}
    for name in missing:
        raise IntegrityError(f"{version.ref}: object of {needed[name][1]} is missing", hint=REPAIR)
