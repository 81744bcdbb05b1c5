"""Migrations: made, listed, explained, checked and applied, as text and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.lines import written
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import NUMBER, FoldedSchema
from ckpt.migrate.way import Way
from ckpt.ops.migrate import Drafted, Exported, Finding, Listed, Migrated
from ckpt.rules.document import rules_document
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, printable
from ckpt.show.rename import (
    changes_lines,
    proof_data,
    proof_lines,
    renamed_data,
    renamed_text,
)

_ADD = "commit it with the change of the class:  git add"


def drafted_text(drafted: Drafted) -> str:
    """What the new migration does, and its file."""
    migration = drafted.migration
    lines = _changes(migration)
    if drafted.ran and drafted.ran.proof:
        lines += proof_lines(drafted.ran.proof)
    else:
        lines.append(f"  {_checked_text(migration)}")
        if drafted.ran and drafted.ran.why_not:
            lines.append(f"  not proved: {printable(drafted.ran.why_not)}")
    if drafted.depths:
        lines.append(f"  only for a class with as many blocks: {printable(drafted.depths)}")
    if drafted.path is None:
        return "\n".join([*lines, "", *map(printable, migration.text.splitlines())])
    path = _near(drafted.path)
    return "\n".join([*lines, "", f"wrote {path}", f"{_ADD} {path}"])


def drafted_data(drafted: Drafted) -> dict[str, Any]:
    """The same for JSON."""
    ran = drafted.ran
    return {
        **explained_data(drafted.migration),
        **fields(drafted, "depths", "path"),
        "proof": proof_data(ran.proof) if ran and ran.proof else None,
        "not_proved": ran.why_not if ran else None,
    }


def listed_text(listed: Listed) -> str:
    """A row for each migration."""
    if not listed.migrations:
        return f"no migrations in {_near(listed.folder)}"
    rows = [
        (
            it.name,
            ", ".join(it.definitions),
            count(len(it.rules), "rule"),
            it.checked.how,
            it.message,
        )
        for it in listed.migrations
    ]
    return table(rows, ["migration", "class", "rules", "checked", "message"])


def listed_data(listed: Listed) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "folder": str(listed.folder),
        "migrations": [
            fields(it, "name", "definitions", "message", "checked=checked.how")
            for it in listed.migrations
        ],
    }


def explained_text(migration: Migration) -> str:
    """What a migration does to its example, and how it was checked."""
    head = f"{printable(migration.name)}  {printable(', '.join(migration.definitions))}"
    lines = [head, f"  {printable(migration.message)}"] if migration.message else [head]
    for schema, name in ((migration.before, "before"), (migration.after, "after")):
        if schema.number is not None:
            lines.append(f"  {NUMBER} {schema.number} {name}")
    return "\n".join([*lines, "", *_changes(migration), f"  {_checked_text(migration)}"])


def explained_data(migration: Migration) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(migration, "name", "definitions", "message"),
        "rules": rules_document(migration.rules),
        "before": _schema_data(migration.before),
        "after": _schema_data(migration.after),
        "checked": fields(migration.checked, "how", "on"),
    }


def checked_text(checked: tuple[Listed, Sequence[Finding]]) -> str:
    """All good, or a paragraph for each finding."""
    listed, findings = checked
    where = _near(listed.folder)
    if not findings:
        return f"{count(len(listed.migrations), 'migration')} in {where}: all good"
    lines = []
    for found in findings:
        lines.append(
            printable(f"{', '.join(found.migrations)} ({found.definition}): {found.problem}")
        )
        lines += [f"  {printable(found.hint)}"] if found.hint else []
    return "\n".join(lines)


def checked_data(checked: tuple[Listed, Sequence[Finding]]) -> dict[str, Any]:
    """The same for JSON."""
    listed, findings = checked
    return {
        **listed_data(listed),
        "findings": [fields(it, "definition", "migrations", "problem", "hint") for it in findings],
    }


def migrated_text(migrated: Migrated) -> str:
    """The migrations on the way, and the rename that they are."""
    definition = printable(migrated.definition)
    if migrated.renamed is None:
        return f"{printable(migrated.source)} fits {definition} as it is"
    return f"{way_text(migrated.way)}\n{renamed_text(migrated.renamed)}"


def migrated_data(migrated: Migrated) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(migrated, "source", "definition"),
        "migrations": [step.name for step in migrated.way.steps],
        "back": migrated.way.back,
        "renamed": renamed_data(migrated.renamed) if migrated.renamed else None,
    }


def exported_text(exported: Exported) -> str:
    """The module itself, or what was written."""
    if exported.path is None:
        return exported.text.rstrip("\n")
    migrations = count(len(exported.migrations), "migration")
    forms = count(exported.forms, "earlier form")
    path = _near(exported.path)
    return f"wrote {path}  {migrations}, {forms}\ntest it:  pytest {path}"


def exported_data(exported: Exported) -> dict[str, Any]:
    """The same for JSON."""
    return fields(exported, "target", "migrations", "forms", "path", "text")


def way_text(way: Way) -> str:
    """``by conv-to-embed, then split-qkv``."""
    if not way.steps:
        return "fits as it is"
    text = way.names if way.back else f"by {way.names}"
    return printable(text + (" (of merged branches)" if way.merged else ""))


def _near(path: Path) -> str:
    """A path as one types it from here."""
    here = Path.cwd()
    return printable(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _schema_data(schema: FoldedSchema) -> dict[str, Any]:
    return {NUMBER: schema.number, "keys": written(schema.keys)}


def _changes(migration: Migration) -> list[str]:
    return changes_lines(_plan(migration))


def _plan(migration: Migration) -> Plan:
    """What the rules do to the example of a migration."""
    example = migration.before.example()
    return plan_tensors(example.entries, that_find(begin(example).planned, migration.rules))


def _checked_text(migration: Migration) -> str:
    on = ", ".join(migration.checked.on)
    return printable(migration.checked.how + (f" on {on}" if on else ""))
