"""What the guard found."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ckpt.migrate.described import name_of
from ckpt.ops.guard.verdicts import Verdict
from ckpt.printed import Printed


@dataclass(frozen=True, slots=True)
class GuardedClass:
    """What was found about one definition.

    Attributes:
        definition: As it is typed, with its arguments.
        file: Its file; None if it is not known.
        verdicts: On what it must load.
        remark: Why there are none; None if there are.
        problem: Why it could not be built; None if it was.
        hint: The way out of that.
        migrations: The folder of its migrations; None if its file is not known.
        written: The files of migrations that were written for it.
        former: What the revision calls it, if that is another name.
    """

    definition: str
    file: Path | None = None
    verdicts: tuple[Verdict, ...] = ()
    remark: str | None = None
    problem: str | None = None
    hint: str | None = None
    migrations: Path | None = None
    written: tuple[Path, ...] = ()
    former: str | None = None

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The verdicts on what it does not load."""
        return tuple(verdict for verdict in self.verdicts if verdict.broken)

    @property
    def stale(self) -> bool:
        """Whether a snapshot is of an earlier form, which migrations lead from."""
        return any(
            verdict.by and weights.snapshot
            for verdict in self.verdicts
            for weights in verdict.weights
        )

    @property
    def line(self) -> int | None:
        """Where it begins in its file, counted from 1; None if that cannot be read."""
        return None if self.file is None else line_of(self.file, name_of(self.definition))


@dataclass(frozen=True, slots=True, repr=False)
class GuardResult(Printed):
    """What was found about all definitions.

    Attributes:
        classes: One after the other.
        against: The revision with whose classes they were compared; None without.
    """

    VIEW: ClassVar = "ckpt.show.guard:guard_text"

    classes: tuple[GuardedClass, ...]
    against: str | None = None

    @property
    def broken(self) -> tuple[GuardedClass, ...]:
        """Those that do not load what they must load."""
        return tuple(found for found in self.classes if found.broken)

    @property
    def failed(self) -> tuple[GuardedClass, ...]:
        """Those that could not be built."""
        return tuple(found for found in self.classes if found.problem)

    @property
    def holds(self) -> bool:
        """Whether all of them load what they must load."""
        return not (self.broken or self.failed)


def file_of(ref: str, folder: Path) -> Path | None:
    """The file that a ref names by its path; None if it names a module."""
    place = ref.partition("(")[0].rpartition(":")[0]
    return folder / place if place.endswith(".py") or "/" in place else None


def line_of(file: Path, name: str) -> int | None:
    """The line of a class or function; that of the error in a file that Python cannot read."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        return error.lineno
    except (OSError, ValueError, RecursionError, MemoryError):
        return None
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = (
        node.lineno for node in ast.walk(tree) if isinstance(node, kinds) and node.name == name
    )
    return next(found, None)
