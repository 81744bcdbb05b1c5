"""Export migrations: as Python that libraries ship, without a dependency on ckpt."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ckpt.definitions import find_definition
from ckpt.errors import UsageError
from ckpt.io.files import write_whole
from ckpt.migrate.folder import place_of_definition
from ckpt.migrate.schema import fold_all, schema_of
from ckpt.ops.migrate.exporting.forms import earlier_forms
from ckpt.ops.migrate.exporting.mapping import mapping_source
from ckpt.ops.migrate.exporting.python import python_source
from ckpt.printed import Printed

TARGETS = ("torch", "lightning", "transformers", "vllm")


@dataclass(frozen=True, slots=True, repr=False)
class Exported(Printed):
    """Migrations as Python.

    Attributes:
        text: The module.
        target: What it is for.
        migrations: The names of the migrations in it.
        forms: The number of earlier forms of the class that it knows.
        path: The file that was written; None without.
    """

    VIEW: ClassVar = "ckpt.show.migrate:exported_text"

    text: str
    target: str
    migrations: tuple[str, ...]
    forms: int
    path: Path | None


def export_migrations(
    definition: str,
    target: str,
    *,
    out: Path | None = None,
    arguments: Mapping[str, object] | None = None,
    replace_out: bool = False,
) -> Exported:
    """Write the migrations of a class as a module of Python that needs no ckpt.

    Args:
        definition: The class.
        target: ``torch`` is a hook for `load_state_dict`, ``lightning`` one for
            `on_load_checkpoint`; ``transformers`` and ``vllm`` are mappings of keys.
        out: The file; None writes nothing.
        arguments: The arguments of the class.
        replace_out: Replace an existing file.

    Raises:
        UsageError: No migrations lead to the class.
        ExportError: A rule has no form in the target; the message names it.
        AmbiguousEntryError: Two ways lead to the class, and their results differ.
    """
    if target not in TARGETS:
        raise UsageError(f"{target} is not one of {', '.join(TARGETS)}")
    found = find_definition(definition, arguments)
    place = place_of_definition(found)
    present = fold_all([schema_of(found.state())])
    forms = list(earlier_forms(place.graph(), present))
    if not forms:
        raise UsageError(
            f"no migrations in {place.folder} lead to {definition}",
            hint="to see why:  ckpt migrate check",
        )
    make = python_source if target in ("torch", "lightning") else mapping_source
    name = place.definition.rpartition(":")[2]
    text = make(forms, present, name, target)
    names = dict.fromkeys(step.name for form in forms for step in form.steps)
    if out is not None:
        with write_whole(out, replace=replace_out) as file:
            file.write(text.encode("utf-8"))
    return Exported(text, target, tuple(names), len(forms), out)
