"""A migration: one TOML file with the rules from one schema of a class to the next."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ckpt.errors import CkptError, RuleError
from ckpt.io.documents.toml import text_of
from ckpt.io.files import write_whole
from ckpt.io.small_file import parse_toml, read_small
from ckpt.migrate.lines import block_counts, read, written
from ckpt.migrate.schema import NUMBER, FoldedSchema
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.planned import Rule

SUFFIX = ".toml"
HOWS = ("proved", "fitted", "by hand")
_FIELDS = {"message", "definition", "rules", "checked", "before", "after"}
_HEAD = "# A migration: `ckpt migrate show` explains it, `ckpt migrate check` tries it.\n"
_MOST_NAME = 40
_MOST_SHARED = 1 << 11  # schemas: one migration ends where another begins
_WRITTEN = re.compile(
    r"\[(?P<name>before|after)\]\n(?P<more>(?:(?:ckpt_schema|blocks) = [^\n]*\n)*)"
    r"keys = \[\n(?P<keys>(?:    '[^'\x00-\x1f\x7f]*',\n)+)\]\n*"
)
_TABLE = re.compile(r"^\[(?:checked|before|after)\]$", re.MULTILINE)


class MigrationError(CkptError):
    """A migration's file is invalid, or its rules do not do what it says."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """How a migration was checked when it was made.

    Attributes:
        how: ``proved`` by running both classes, ``fitted`` by torch's loader, or ``by hand``.
        on: The definitions that it was made with, with their arguments.
    """

    how: str = "by hand"
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one schema to another.

    Attributes:
        name: Its file's name, without the suffix.
        definitions: The classes to which it belongs, ``net.py:Net``; the file by its name alone.
        message: What changed, in a person's words.
        rules: Applied first to last; one that finds nothing in a state_dict is passed over, since
            a configuration of the class may lack what it looks for.
        before: The schema that the rules begin with.
        after: The schema that they lead to.
        checked: How that was checked.
    """

    name: str
    definitions: tuple[str, ...]
    message: str
    rules: tuple[Rule, ...]
    before: FoldedSchema
    after: FoldedSchema
    checked: Checked = field(default_factory=Checked)

    @property
    def text(self) -> str:
        """Its file."""
        several = len(self.definitions) > 1
        head = {
            "message": self.message,
            "definition": list(self.definitions) if several else self.definitions[0],
            "rules": rules_document(self.rules),
        }
        checked = {"how": self.checked.how, "on": list(self.checked.on)}
        tables = {
            "checked": checked,
            "before": _schema_document(self.before),
            "after": _schema_document(self.after),
        }
        texts = [f"\n[{name}]\n{_table(table)}" for name, table in tables.items()]
        return _HEAD + text_of(head) + "".join(texts)


def _table(table: Mapping[str, Any]) -> str:
    """As `text_of`, with a line for each key of a schema."""
    lines = "".join(text_of({name: value}) for name, value in table.items() if name != "keys")
    keys = [text_of({"x": key}).removeprefix("x = ") for key in table.get("keys", ())]
    return lines + ("keys = [\n" + "".join(f"    {key[:-1]},\n" for key in keys) + "]\n" if keys
                    else "")  # fmt: skip


def _schema_document(schema: FoldedSchema) -> dict[str, Any]:
    counts = block_counts(schema.keys)
    number = {} if schema.number is None else {NUMBER: schema.number}
    return {**number, **({"blocks": counts} if counts else {}), "keys": written(schema.keys)}


def read_migration(path: Path) -> Migration:
    """Read a migration's file.

    Raises:
        MigrationError: It is not one; the message has the line or the field.
    """
    try:
        document = _parsed(read_small(path).decode("utf-8"))
        return _migration(path, document)
    except MigrationError:
        raise
    except RuleError as error:
        raise MigrationError(str(error), hint=error.hint) from error
    except CkptError:
        raise
    except ValueError as error:  # of TOML or UTF-8
        raise MigrationError(f"{path}: {error}", hint="ckpt migrate new  writes one") from error


def _parsed(text: str) -> dict[str, Any]:
    """A file's document; a schema that another file has, too, is parsed once.

    The line of a table's head is one unless it is inside of a string or list; then what is before
    it is not valid by itself.
    """
    heads = [match.start() for match in _TABLE.finditer(text)]
    parts = [text[a:b] for a, b in zip([0, *heads], [*heads, len(text)], strict=True)]
    made: dict[str, Any] = {}
    try:
        tables = [*map(_part, parts)]
    except ValueError:
        return parse_toml(text)  # whose message has the line
    for table in tables:
        made.update(table)
    distinct = len(made) == sum(map(len, tables))
    return made if distinct else parse_toml(text)


@lru_cache(maxsize=_MOST_SHARED)
def _part(text: str) -> dict[str, Any]:
    """A part; the form in which `Migration.text` writes a schema takes a tenth of the time."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        return parse_toml(text)
    keys = [line[5:-2] for line in found["keys"].splitlines()]  # between the quotes
    return {found["name"]: {**parse_toml(found["more"]), "keys": keys}}


def _migration(path: Path, document: Mapping[str, Any]) -> Migration:
    for name in document.keys() - _FIELDS:
        raise MigrationError(f"{path}: unknown field {name!r}")
    for name in _FIELDS - {"message", "checked"} - document.keys():
        raise MigrationError(f"{path}: has no {name!r}", hint="ckpt migrate new  writes one")
    definition, message = document["definition"], document.get("message", "")
    named = definition if isinstance(definition, list) else [definition]
    if not named or not all(isinstance(text, str) and ":" in text for text in named):
        raise MigrationError(f"{path}: definition is {definition!r:.80}, expected 'net.py:Net'")
    if not isinstance(message, str):
        raise MigrationError(f"{path}: message is not a string")
    return Migration(
        path.name.removesuffix(SUFFIX),
        tuple(named),
        message,
        tuple(read_rules(document["rules"], name=str(path))),
        _schema(document["before"], f"{path}: before"),
        _schema(document["after"], f"{path}: after"),
        _checked(document.get("checked", {}), path),
    )


def _schema(document: object, name: str) -> FoldedSchema:
    if not isinstance(document, dict) or document.keys() - {NUMBER, "blocks", "keys"}:
        raise MigrationError(f"{name}: expected keys, and at most blocks and {NUMBER} beside them")
    number, blocks = document.get(NUMBER), document.get("blocks", {})
    if number is not None and type(number) is not int:
        raise MigrationError(f"{name}: {NUMBER} is {number!r:.80}, expected a whole number")
    most = 10_000
    if not isinstance(blocks, dict) or not all(
        type(count) is int and 1 <= count <= most for count in blocks.values()
    ):
        raise MigrationError(f"{name}: blocks are not numbers from 1 to {most:,}")
    keys = document.get("keys")
    if not isinstance(keys, list) or not keys:
        raise MigrationError(f"{name}: not a list of keys")
    try:
        return _folded(tuple(map(str, keys)), tuple(blocks.items()), number)
    except RuleError as error:
        raise RuleError(f"{name}: {error}", hint=error.hint) from error


@lru_cache(maxsize=_MOST_SHARED)
def _folded(
    keys: tuple[str, ...], blocks: tuple[tuple[str, int], ...], number: int | None
) -> FoldedSchema:
    return FoldedSchema(read(keys, dict(blocks)), number)


def _checked(document: object, path: Path) -> Checked:
    if not isinstance(document, dict) or document.keys() - {"how", "on"}:
        raise MigrationError(f"{path}: checked has how and on, and nothing else")
    how, on = document.get("how", HOWS[-1]), document.get("on", [])
    if how not in HOWS:
        raise MigrationError(f"{path}: checked how {how!r:.80}, expected {', '.join(HOWS)}")
    if not isinstance(on, list) or not all(isinstance(text, str) for text in on):
        raise MigrationError(f"{path}: checked on is not a list of definitions")
    return Checked(how, tuple(on))


def write_migration(folder: Path, migration: Migration) -> Path:
    """Write a new migration's file into a folder; one of its name must not exist."""
    path = folder / f"{migration.name}{SUFFIX}"
    if path.exists():
        raise MigrationError(f"{path} exists", hint="-m 'other words'  gives another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CkptError(f"{folder}: {error.strerror}") from error
    with write_whole(path) as out:
        out.write(migration.text.encode("utf-8"))
    return path


def free_name(words: str, taken: Sequence[str]) -> str:
    """A name for a migration's file: of a few words, and of none that is taken."""
    slug = re.sub("[^a-z0-9]+", "-", words.replace("->", " to ").lower()).strip("-")
    slug = slug[:_MOST_NAME].rsplit("-", 1)[0] if len(slug) > _MOST_NAME else slug
    slug = slug or "migration"
    names = (slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)
