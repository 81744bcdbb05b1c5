"""Guard: whether classes still load the weights that they must load."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from ckpt.errors import CkptError, UsageError
from ckpt.migrate.described import Builder, Described
from ckpt.migrate.folder import place_of
from ckpt.migrate.revision import PREFIX, at_revision
from ckpt.migrate.schema import schema_of
from ckpt.ops.guard.classes import of_revision, of_weights
from ckpt.ops.guard.earlier import no_longer_guarded
from ckpt.ops.guard.result import GuardedClass, GuardResult
from ckpt.ops.guard.settings import Settings, settings_for, settings_of
from ckpt.ops.guard.snapshots import snapshot_of, write_snapshot
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version


def guard(
    *definitions: str,
    against: str | None = None,
    arguments: Mapping[str, object] | None = None,
    seconds: float | None = None,
    fix: bool = False,
    folder: Path | None = None,
    registry: InRegistry | None = None,
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
        registry = Registry.of(registry)
        found = [
            of_weights(it, settings.folder, arguments, registry, fix=fix) for it in settings.guarded
        ]
        return GuardResult(tuple(found))
    with ExitStack() as opened:
        try:
            revision = opened.enter_context(at_revision(settings.folder, against))
        except UsageError as error:
            if version := _version_of(against, Registry.of(registry)):
                raise _not_a_revision(against, version, settings) from error
            raise
        gone = no_longer_guarded(revision, settings.guarded)
        found = [
            of_revision(it, settings.folder, arguments, revision, gone, fix=fix)
            for it in settings.guarded
        ]
        renamed, remark = {it.former for it in found}, f"is no longer guarded since {revision.name}"
        left = [it for it in gone if it not in renamed and not definitions]
        found += [GuardedClass(definition, remark=remark) for definition in left]
        return GuardResult(tuple(found), revision.name)


def _version_of(against: str, registry: Registry) -> Version | None:
    """The version that somebody named in the place of a revision."""
    with suppress(CkptError):
        return registry.version(against.removeprefix(PREFIX))
    return None


def _not_a_revision(against: str, version: Version, settings: Settings) -> UsageError:
    """The error about a version in the place of a revision, with what takes versions."""
    definition = settings.guarded[0].definition
    steps = [
        "to see whether the class loads it:",
        f"ckpt diff {quote(against.removeprefix(PREFIX))} {quote(definition)}",
        *settings_for(definition, [version.model]),
    ]
    return UsageError(
        f"{against}: a version, expected a revision of git, such as git:origin/main",
        hint="\n".join(steps),
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was written.

    Attributes:
        definition: The definition.
        path: Its file.
        keys: How many keys the class has.
        changed: Whether it replaces another one.
        left: Whether no migration leads from that one to the class.
    """

    definition: str
    path: Path
    keys: int
    changed: bool = False
    left: bool = False


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
        MigrationError: The settings, a migration or a snapshot are invalid.
    """
    settings = settings_of(definitions, seconds)
    taken = []
    for guarded in settings.guarded:
        with Builder(settings.folder, seconds=guarded.seconds) as builder:
            described = builder.describe(guarded.definition, arguments)
        taken.append(_taken(described))
    return tuple(taken)


def _taken(described: Described) -> Taken:
    if described.file is None:
        raise UsageError(f"{described.ref}: Python does not know its file")
    place = place_of(described.file, described.name)
    graph = place.graph()
    snapshot = snapshot_of(described, place)
    path, earlier = write_snapshot(place, snapshot)
    count = len(described.state.keys)
    if earlier is None or earlier.text == snapshot.text:
        return Taken(described.ref, path, count)
    way = graph.way(schema_of(earlier.state), described.schema)
    return Taken(described.ref, path, count, changed=True, left=way is None)
