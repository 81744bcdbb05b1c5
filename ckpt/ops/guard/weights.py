"""What a class must load: versions of the registry, and snapshots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import RefError
from ckpt.io.files import exists
from ckpt.migrate.folder import Place
from ckpt.opened import open_ref
from ckpt.opened.states import OpenedVersion
from ckpt.ops.guard.settings import Guarded, same_definition
from ckpt.ops.guard.snapshots import snapshots_in
from ckpt.registry.index import Model
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.tensors import StateDict


@dataclass(frozen=True, slots=True)
class Weights:
    """A state_dict that must keep loading.

    Attributes:
        name: ``mnist-cnn:v2``, the file of a snapshot, or a revision.
        state: The state_dict without values.
        aliases: Those of a version.
        source: What to type for it as a checkpoint or class; None if there is nothing.
        snapshot: Whether it is one.
    """

    name: str
    state: StateDict
    aliases: tuple[str, ...] = ()
    source: str | None = None
    snapshot: bool = False


def versions_of(guarded: Guarded, registry: Registry) -> Iterator[Weights]:
    """The guarded versions, by model, oldest first.

    Raises:
        RefError: The registry has no model of a name that the settings have.
    """
    if not registry.exists:
        if guarded.models:
            raise RefError(
                f"{guarded.definition}: no registry here, expected one with {guarded.models[0]}"
            )
        return
    models = registry.index().models
    for name in guarded.models or ():
        if name not in models:
            raise RefError(f"{guarded.definition}: the registry has no model {name!r}")
    chosen = [
        model
        for model in models.values()
        if (
            _made_with(model, (guarded.definition, *(guarded.formerly or ())), registry)
            if guarded.models is None
            else model.name in guarded.models
        )
    ]
    for model in chosen:
        for version in _chosen(model, guarded.versions):
            with open_ref(version.ref, registry) as opened:
                assert isinstance(opened, OpenedVersion)
                yield Weights(
                    version.ref, opened.state, tuple(model.aliases_of(version)), version.ref
                )


def _chosen(model: Model, choice: str) -> list[Version]:
    versions = [*model.versions.values()]
    if choice == "aliases":
        return [version for version in versions if model.aliases_of(version)]
    return versions[-1:] if choice == "latest" else versions


def _made_with(model: Model, definitions: Sequence[str], registry: Registry) -> bool:
    """Whether any version was trained with one of some definitions, or renamed to fit it."""
    for version in model.versions.values():
        record = registry.manifest(version).record
        recipe = record.get("training", {}).get("recipe", {})
        recorded = (recipe.get("model") if isinstance(recipe, dict) else None, record.get("fits"))
        texts = [it for it in recorded if isinstance(it, str)]
        if any(same_definition(it, name) for it in texts for name in definitions):
            return True
    return False


def snapshots_of(place: Place, ref: str) -> Iterator[Weights]:
    """The snapshots of the configuration that a ref names.

    Raises:
        MigrationError: A file is not a snapshot.
    """
    _, bracket, arguments = ref.partition("(")
    for path, snapshot in snapshots_in(place):
        if snapshot.definition == place.definition + bracket + arguments:
            yield Weights(_shown(path), snapshot.state, snapshot=True)


def _shown(path: Path) -> str:
    """A path from the current folder, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and exists(path) else str(path)
