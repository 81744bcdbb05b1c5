"""Snapshots: the exact schema of a class, as it was when the snapshot was taken.

A file for each configuration, in ``schemas/`` beside the migrations, committed like a lock file:
canonical JSON with a key a line.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from ckpt.errors import CkptError
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Count, Form, expect
from ckpt.io.files import write_whole
from ckpt.io.small_file import read_small
from ckpt.migrate.described import Described
from ckpt.migrate.folder import Place
from ckpt.migrate.migration import MigrationError
from ckpt.migrate.schema import schema_of
from ckpt.tensors import NOT_A_TENSOR, StateDict, TensorEntry, is_key

FOLDER = "schemas"
_FORM = 1
_USUAL = {"version": 1}  # what torch notes of most modules
_Key = Annotated[str, Form("a key", is_key)]


class _Document(TypedDict):
    snapshot: Annotated[int, Form(f"{_FORM}: a newer ckpt wrote it", lambda form: form == _FORM)]
    definition: str
    digest: str
    keys: list[tuple[_Key, str, list[Count]]]
    versions: dict[str, dict[str, Any]]
    ties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot.

    Attributes:
        definition: The class with its arguments, as migrations name it: ``net.py:Net(depth=2)``.
        state: Its state_dict without values.
    """

    definition: str
    state: StateDict

    @property
    def text(self) -> str:
        """Its file."""
        versions = self.state.versions or {}
        unusual = {name: numbers for name, numbers in versions.items() if numbers != _USUAL}
        fields = {
            "snapshot": _FORM,
            "definition": self.definition,
            "digest": schema_of(self.state).digest,
        }
        keys = [[entry.key, entry.dtype, list(entry.shape)] for entry in self.state.keys]
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        lines.append(f'"keys": [\n{_lines(map(json.dumps, keys))}]')
        for name, table in (("versions", unusual), ("ties", self.state.tied)):
            pairs = [f"{json.dumps(a)}: {json.dumps(b, sort_keys=True)}" for a, b in table.items()]
            lines.append(f'"{name}": {{\n{_lines(pairs)}}}' if pairs else f'"{name}": {{}}')
        return "{\n" + ",\n".join(lines) + "\n}\n"


def _lines(texts: Any) -> str:
    joined = ",\n  ".join(texts)
    return f"  {joined}\n" if joined else ""


def snapshot_of(described: Described, place: Place) -> Snapshot:
    """The snapshot of a class as it is."""
    _, bracket, arguments = described.ref.partition("(")
    return Snapshot(place.definition + bracket + arguments, described.state)


def snapshots_in(place: Place) -> Iterator[tuple[Path, Snapshot]]:
    """The snapshots of a class in all its configurations, with their files.

    Raises:
        MigrationError: A file is not one.
    """
    for path in sorted((place.folder / FOLDER).glob("*.json")):
        snapshot = read_snapshot(path)
        if snapshot.definition.partition("(")[0] == place.definition:
            yield path, snapshot


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot's file.

    Raises:
        MigrationError: It is not one; the message has the field.
    """
    try:
        document = strict_json.parse(read_small(path).decode("utf-8"))
        expect(document, _Document, name="")
        state = _state(document)
        if schema_of(state).digest != document["digest"]:
            raise ValueError("its keys are not those of its digest")
    except CkptError:
        raise
    except ValueError as error:
        hint = "to write it again, after a merge from the merged class:  ckpt guard --snapshot"
        raise MigrationError(f"{path}: {error}", hint=hint) from error
    return Snapshot(document["definition"], state)


def _state(document: Mapping[str, Any]) -> StateDict:
    keys = [TensorEntry(key, dtype, tuple(shape)) for key, dtype, shape in document["keys"]]
    tensors = tuple(entry for entry in keys if entry.dtype != NOT_A_TENSOR)
    others = tuple(entry.key for entry in keys if entry.dtype == NOT_A_TENSOR)
    modules: dict[str, Any] = {"": _USUAL}
    for entry in keys:
        parts = entry.key.split(".")[:-1]
        modules.update({".".join(parts[: n + 1]): _USUAL for n in range(len(parts))})
    return StateDict(tensors, others, {**modules, **document["versions"]}, document["ties"])


def write_snapshot(place: Place, snapshot: Snapshot) -> tuple[Path, Snapshot | None]:
    """Write a snapshot in place of an earlier one of the same configuration.

    Returns:
        Its file, and the earlier one.
    """
    earlier = {it.definition: (path, it) for path, it in snapshots_in(place)}
    path, before = earlier.get(snapshot.definition, (None, None))
    if path is None:
        path = _free_path(place, snapshot.definition)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path, replace=True) as out:
        out.write(snapshot.text.encode("utf-8"))
    return path, before


def _free_path(place: Place, definition: str) -> Path:
    """``Net.json``, ``Net-depth-2.json``; with the file's name where another class has that."""
    file, _, called = definition.partition("(")[0].rpartition(":")
    arguments = definition.partition("(")[2]
    slug = re.sub("[^A-Za-z0-9_.]+", "-", f"{called}-{arguments}").strip("-")[:80]
    folder = place.folder / FOLDER
    stem = re.sub("[^A-Za-z0-9_]+", "-", file.removesuffix(".py")).strip("-")
    names = [slug, f"{stem}-{slug}", *(f"{stem}-{slug}-{number}" for number in range(2, 100))]
    return next(path for name in names if not (path := folder / f"{name}.json").exists())
