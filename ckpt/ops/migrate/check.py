"""Check migrations: whether their rules do what they say, and whether they lead anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ckpt.definitions import find_definition
from ckpt.errors import UsageError
from ckpt.migrate.chain import problem_of
from ckpt.migrate.folder import (
    FOLDER,
    Place,
    place_of,
    place_of_definition,
    settings_above,
)
from ckpt.migrate.graph import Graph, of_class
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import Schema, fold_all, schema_of
from ckpt.printed import Printed


@dataclass(frozen=True, slots=True, repr=False)
class Listed(Printed):
    """The migrations of one folder.

    Attributes:
        folder: The folder.
        migrations: By name.
    """

    VIEW: ClassVar = "ckpt.show.migrate:listed_text"

    folder: Path
    migrations: tuple[Migration, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with migrations.

    Attributes:
        definition: The class.
        migrations: Their names.
        problem: What is wrong.
        hint: What to do.
    """

    definition: str
    migrations: tuple[str, ...]
    problem: str
    hint: str | None = None


def list_migrations(where: str | None = None) -> Listed:
    """The migrations of a class, of a folder, or of the folder that the project names.

    Args:
        where: ``net.py:Net``, a folder, or None for the current folder's project.

    Raises:
        MigrationError: A file is not a migration.
    """
    place, definition = _place(where)
    found = place.migrations()
    if definition is not None:
        found = tuple(it for it in found if definition in it.definitions)
    return Listed(place.folder, found)


def check_migrations(
    where: str | None = None, *, arguments: Mapping[str, object] | None = None
) -> tuple[Listed, list[Finding]]:
    """Try migrations on the examples that they hold.

    Args:
        where: As for `list_migrations`. A class is built, to see whether all lead to it; for a
            folder nothing is.
        arguments: The arguments of the class.

    Raises:
        MigrationError: A file is not a migration.
    """
    listed = list_migrations(where)
    names = dict.fromkeys(name for it in listed.migrations for name in it.definitions)
    graphs = {name: of_class(listed.migrations, name) for name in names}
    findings = [it for name, graph in graphs.items() for it in _findings(name, graph)]
    if not findings and where is not None and ":" in where:
        definition = find_definition(where, arguments)
        schema = schema_of(definition.state())
        findings += _gaps(place_of_definition(definition).definition, listed.migrations, schema)
    return listed, findings


def _place(where: str | None) -> tuple[Place, str | None]:
    """The folder of what was named, and the class if one was."""
    if where is not None and ":" in where:
        file, _, name = where.partition("(")[0].rpartition(":")
        if not Path(file).is_file():
            place = place_of_definition(find_definition(where))  # package.module:Class
        else:
            place = place_of(Path(file), name)
        return place, place.definition
    folder = Path.cwd() if where is None else Path(where)
    if where is None:
        project, settings = settings_above(folder)
        named = settings.get("migrations")
        folder = project / named if isinstance(named, str) else folder / FOLDER
        if not folder.is_dir():
            folder = _beside_guarded(project, settings) or folder
    elif (folder / FOLDER).is_dir():
        folder = folder / FOLDER
    if not folder.is_dir():
        hint = "name a class or a folder:  ckpt migrate ls models/net.py:Net"
        raise UsageError(f"{folder}: no such folder", hint=hint)
    return Place(folder, ""), None


def _beside_guarded(project: Path, settings: Mapping[str, Any]) -> Path | None:
    """The folder of migrations beside the classes that the settings guard; None if there is none.

    Raises:
        UsageError: There are several.
    """
    items = settings.get("guard")
    named = [it.get("definition") if isinstance(it, dict) else it for it in items or ()]
    files = [str(it).partition("(")[0].rpartition(":")[0] for it in named]
    folders = dict.fromkeys((project / file).parent / FOLDER for file in files)
    found = [folder for folder in folders if folder.is_dir()]
    if len(found) > 1:
        listed = "  or  ".join(str(it.relative_to(project)) for it in found)
        raise UsageError("migrations are in several folders", hint=f"name one:  {listed}")
    return found[0] if found else None


def _findings(name: str, graph: Graph) -> list[Finding]:
    """What can be found without the class."""
    wrong = [(it, reason) for it in graph.migrations if (reason := problem_of(it))]
    if wrong:
        hint = "mend its rules, or make it again:  ckpt migrate new"
        text = "its rules do not lead from its before to its after"
        return [Finding(name, (it.name,), f"{text}: {reason}", hint) for it, reason in wrong]
    found = []
    if cycle := graph.cycle():
        names = tuple(it.name for it in cycle)
        hint = f"remove {names[-1]}: the others lead back as well, by their inverse"
        found.append(Finding(name, names, "leads back to the schema where it begins", hint))
    if ways := graph.disagreement():
        names = tuple(dict.fromkeys(it.name for way in ways for it in way.steps))
        hint = "mend the rules of one of them"
        text = (
            f"two ways to one schema make different tensors: {ways[0].names}; and {ways[1].names}"
        )
        found.append(Finding(name, names, text, hint))
    return found


def _gaps(name: str, migrations: Sequence[Migration], present: Schema) -> Iterator[Finding]:
    """Migrations after which no way leads to the class."""
    graph, wanted = of_class(migrations, name), fold_all([present])
    for migration in graph.migrations:
        if not graph.leads(migration.after, wanted):
            reason = migration.after.mismatch(wanted.example().tree, present.number)
            hint = f"ckpt migrate new {name} --from OLD  makes the one that is missing"
            text = f"no way leads on from it to the class, which differs: {reason}"
            yield Finding(name, (migration.name,), text, hint)
