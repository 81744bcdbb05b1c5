"""Where migrations are: in the folder `migrations` beside the file of their class.

``[tool.ckpt]`` in the nearest ``pyproject.toml`` above it may name another folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

from ckpt.definitions import Definition
from ckpt.errors import CkptError, UsageError
from ckpt.io.small_file import parse_toml, read_small
from ckpt.migrate.graph import Graph, of_class
from ckpt.migrate.migration import SUFFIX, Migration, MigrationError, read_migration

FOLDER = "migrations"
_PROJECT = "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the migrations of a class are.

    Attributes:
        folder: The folder of their files, which need not exist.
        definition: What they call the class: ``net.py:Net``, the file seen from above the folder.
    """

    folder: Path
    definition: str

    def moved(self, folder: Path, file: Path) -> "Place":
        """The same class, whose file this is, with its migrations in another folder."""
        name = self.definition.rpartition(":")[2]
        seen = Path(relpath(file.absolute(), folder.absolute().parent)).as_posix()
        return Place(folder, f"{seen}:{name}")

    def migrations(self) -> tuple[Migration, ...]:
        """All migrations of the folder, by name, also those of other classes.

        Raises:
            MigrationError: A file is not one.
        """
        if not self.folder.is_dir():
            return ()
        files = sorted(path for path in self.folder.iterdir() if path.suffix == SUFFIX)
        return tuple(map(read_migration, files))

    def stamp(self) -> frozenset[tuple[str, int, int]]:
        """What differs once a file of the folder was written: names, times and sizes."""
        if not self.folder.is_dir():
            return frozenset()
        files = (path for path in self.folder.iterdir() if path.suffix == SUFFIX)
        found = ((path.name, path.stat()) for path in files)
        return frozenset((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)

    def graph(self) -> Graph:
        """The migrations of the class."""
        return of_class(self.migrations(), self.definition)


def place_of(file: Path, name: str) -> Place:
    """Where the migrations of a class are.

    Args:
        file: The file that defines it.
        name: Its name there.
    """
    file = file.absolute()
    project, settings = settings_above(file.parent)
    named = settings.get("migrations")
    if named is not None and not isinstance(named, str):
        raise MigrationError(f"{project / _PROJECT}: tool.ckpt.migrations is not a folder's name")
    folder = project / named if named else file.parent / FOLDER
    return Place(folder, f":{name}").moved(folder, file)


def place_of_definition(definition: Definition) -> Place:
    """Where the migrations of a definition are.

    Raises:
        UsageError: Its file is not known.
    """
    if definition.path is None:
        raise UsageError(f"{definition.ref}: Python does not know its file")
    name = definition.ref.partition("(")[0].rpartition(":")[2]
    return place_of(definition.path, name)


def settings_above(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The nearest project around a folder that has settings for ckpt, and these.

    The folder itself and no settings, if there is none.
    """
    for above in (folder, *folder.parents):
        file = above / _PROJECT
        if file.is_file():
            try:
                document = parse_toml(read_small(file).decode("utf-8"))
            except CkptError:
                raise
            except ValueError as error:
                raise MigrationError(f"{file}: {error}") from error
            tools = document.get("tool")
            settings = tools.get("ckpt") if isinstance(tools, dict) else None
            if isinstance(settings, dict):
                return above, settings
    return folder, {}
