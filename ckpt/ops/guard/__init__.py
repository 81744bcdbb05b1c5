"""Guard: whether classes still load the weights that they must load."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.migrate.described import Builder, as_called
from ckpt.migrate.folder import place_of
from ckpt.migrate.revision import at_revision
from ckpt.ops.guard.classes import of_revision, of_weights
from ckpt.ops.guard.result import GuardResult
from ckpt.ops.guard.settings import settings_of
from ckpt.ops.guard.snapshots import snapshot_of, write_snapshot
from ckpt.registry.registry import Registry


def guard(
    *definitions: str,
    against: str | None = None,
    arguments: Mapping[str, object] | None = None,
    seconds: float | None = None,
    fix: bool = False,
    folder: Path | None = None,
    registry: Registry | None = None,
) -> GuardResult:
    """Whether definitions still load their versions in the registry, and their snapshots.

    Each is built in another process. What fits by migrations fits.

    Args:
        *definitions: Without any, those that pyproject.toml guards.
        against: Compare with the classes of another revision instead, ``git:origin/main``.
        arguments: The arguments of the definitions.
        seconds: How long one may take to build.
        fix: Write the migrations that are missing, where the keys tell them for sure.
        folder: Where paths of definitions begin; None is the current folder.
        registry: Where versions are looked up.

    Raises:
        UsageError: No definition is named, there is nothing that one must load, or there is no
            such revision.
        MigrationError: The settings, a migration or a snapshot are invalid.
    """
    settings = settings_of(definitions, seconds, folder=folder)
    if against is None:
        registry = registry or Registry()
        found = [
            of_weights(it, settings.folder, arguments, registry, fix=fix) for it in settings.guarded
        ]
        return GuardResult(tuple(found))
    with at_revision(settings.folder, against) as revision:
        found = [
            of_revision(it, settings.folder, arguments, revision, fix=fix)
            for it in settings.guarded
        ]
        return GuardResult(tuple(found), revision.name)


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was written.

    Attributes:
        definition: The definition.
        path: Its file.
        keys: How many keys the class has.
        changed: Whether an earlier snapshot has other keys.
        new: Whether there was no earlier one.
    """

    definition: str
    path: Path
    keys: int
    changed: bool
    new: bool


def take_snapshots(
    *definitions: str,
    arguments: Mapping[str, object] | None = None,
    seconds: float | None = None,
) -> tuple[Taken, ...]:
    """Write the exact schemas of definitions into ``migrations/schemas/``.

    Args:
        *definitions: As for `guard`.
        arguments: The arguments of the definitions.
        seconds: How long one may take to build.

    Raises:
        UsageError: No definition is named.
        BuildError: A definition cannot be built.
    """
    settings = settings_of(definitions, seconds)
    taken = []
    for guarded in settings.guarded:
        with Builder(settings.folder, seconds=guarded.seconds) as builder:
            described = builder.describe(guarded.definition, arguments)
        ref = as_called(guarded.definition, arguments)
        if described.file is None:
            raise UsageError(f"{ref}: Python does not know its file")
        place = place_of(described.file, described.name)
        snapshot = snapshot_of(described, place)
        path, earlier = write_snapshot(place, snapshot)
        changed = earlier is not None and earlier.text != snapshot.text
        count = len(described.state.keys)
        taken.append(Taken(ref, path, count, changed, earlier is None))
    return tuple(taken)
