"""The class that a version was trained with, from the source that is stored with it.

Law: source that no commit of the folder's own history has word for word is run only if `run` says
so; a registry may come from anybody.
"""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ckpt.io.git import asked
from ckpt.migrate.described import USUAL_SECONDS, Builder, name_of
from ckpt.migrate.revision import at_revision
from ckpt.opened.states import OpenedVersion
from ckpt.ops.migrate.old_model import PROGRAM
from ckpt.ops.migrate.run import made_for

_MOST_COMMITS = 50  # that are asked for a file


@dataclass(frozen=True, slots=True)
class Stored:
    """A class that can be built.

    Attributes:
        builder: The process that builds it.
        definition: What it is called there.
    """

    builder: Builder
    definition: str


@contextmanager
def stored_class(
    opened: OpenedVersion, *, run: bool, seconds: float = USUAL_SECONDS
) -> Iterator[Stored | str]:
    """The class of a version, or why it is not at hand.

    Args:
        opened: The version.
        run: Whether its source may run although the history does not have it.
        seconds: How long it may take to build.
    """
    source = opened.manifest.record.get("definition")
    if source is None:
        yield "the old class is not at hand:  --from OLD.py:Class  runs both"
        return
    data = b"".join(opened.source.stream_object(source["digest"], source["nbytes"]))
    definition = made_for(opened)
    if not _has_class(data, name_of(definition)):
        yield f"{definition}: the source that {opened.name} stores has no such class"
        return
    with TemporaryDirectory(prefix="ckpt-stored-") as folder:
        place = definition.partition("(")[0].rpartition(":")[0]
        file = Path(folder) / (place if place.endswith(".py") else f"{place}.py").split("/")[-1]
        file.write_bytes(data)
        by = opened.manifest.record.get("by") or {}
        found = _in_history(Path.cwd(), file, by.get("commit"))
        if found is not None:
            with _at(*found, definition, seconds) as stored:
                yield stored
        elif run:
            with Builder(Path(folder), seconds=seconds, program=PROGRAM) as builder:
                yield Stored(builder, _called(file.name, definition))
        else:
            yield (
                f"no commit here has the source that {opened.name} stores:  --run-stored  runs it"
            )


@contextmanager
def _at(commit: str, path: str, definition: str, seconds: float) -> Iterator[Stored]:
    """The class as a commit has it, with the modules beside it."""
    with at_revision(Path.cwd(), commit) as revision:
        place = definition.partition("(")[0].rpartition(":")[0]
        is_module = not place.endswith(".py") and path.endswith(place.replace(".", "/") + ".py")
        called = definition if is_module else _called(path, definition)
        with Builder(revision.tree, seconds=seconds, revision=revision, program=PROGRAM) as builder:
            yield Stored(builder, called)


def _called(path: str, definition: str) -> str:
    """The definition, in another file."""
    _, bracket, arguments = definition.partition("(")
    return f"{path}:{name_of(definition)}{bracket}{arguments}"


def _has_class(source: bytes, name: str) -> bool:
    """Whether a file defines a class; a function of another name may do anything."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in body)


def _in_history(folder: Path, file: Path, recorded: str | None) -> tuple[str, str] | None:
    """A commit below HEAD that has the content of a file, and the path of it there.

    Args:
        folder: In the work tree.
        file: The file.
        recorded: The commit at which the version was made. It is preferred: the modules that the
            file imports may have changed while the file did not.
    """
    blob = asked(folder, "hash-object", "--no-filters", "--", str(file))
    if not blob:
        return None
    words = ("--format=%H", f"--max-count={_MOST_COMMITS}", f"--find-object={blob}")
    commits = (asked(folder, "log", *words, "HEAD") or "").split()
    if recorded and recorded.isalnum():  # no option of git's: a registry may come from anybody
        is_ancestor = asked(folder, "merge-base", "--is-ancestor", recorded, "HEAD") is not None
        commits[:0] = [recorded] if is_ancestor else []
    for commit in commits:
        # Without --full-tree git would list the folder alone; the removal of a file counts, too.
        listed = asked(folder, "ls-tree", "-r", "-z", "--full-tree", commit) or ""
        rows = (row.partition("\t") for row in listed.split("\0"))
        paths = [path for about, _, path in rows if about.split()[2:] == [blob]]
        if paths:
            return commit, min(paths, key=lambda path: (path.rpartition("/")[2] != file.name, path))
    return None
