"""Import: the checkpoints of a folder become versions of a model, oldest first."""

from pathlib import Path
from shlex import quote

from ckpt.errors import UsageError, excerpt
from ckpt.formats.opaque import OpaqueWord
from ckpt.io.files import Told, untold
from ckpt.ops.import_.adding import Adding
from ckpt.ops.import_.folder import PREFIX as FOLDER
from ckpt.ops.import_.folder import import_folder
from ckpt.ops.import_.imported import Imported
from ckpt.ops.register import model_name
from ckpt.refs import expect_new_name
from ckpt.registry.registry import InRegistry, Registry

_WANDB = """\
wandb artifact get ENTITY/PROJECT/NAME:v0 --root runs/v0  for each version, then
ckpt import folder:runs --by-name --name NAME"""


def import_versions(
    source: str,
    *,
    name: str | None = None,
    by_name: bool = False,
    opaque: OpaqueWord | None = None,
    dry_run: bool = False,
    registry: InRegistry | None = None,
    told: Told = untold,
) -> Imported:
    """Add the checkpoints of a folder as versions of a model, oldest first.

    Their times become those of the versions. What the model has already, or had, is not added
    again, and an alias that is or was here is not changed: an import may be repeated. Nothing in a
    checkpoint is run.

    Args:
        source: ``folder:PATH``, with all checkpoints below it.
        name: The model; None takes the folder's name.
        by_name: Order the files by their names, not by their times.
        opaque: ``keep`` stores objects of unknown classes byte for byte, ``drop`` stores files
            without them. None makes those plain that have a plain form, such as a module, and
            leaves files with others out.
        dry_run: Whether to read only, and say what would be added.
        registry: The registry; None finds it as the command line does.
        told: Called with the bytes done and the bytes in all.

    Raises:
        RefError: There is no such folder, or nothing to import.
        UsageError: `source` names something else.

    Example:
        >>> imported = ckpt.import_versions("folder:runs", name="digits")
        >>> [(item.name, item.did, item.version) for item in imported.items]
        [('epoch_1.pt', 'new', 'v1'), ('epoch_2.pt', 'new', 'v2')]
    """
    kind, _, rest = source.partition(":")
    if kind == "wandb":
        raise UsageError(f"{excerpt(source)}: W&B is not supported", hint=_WANDB)
    if not source.startswith(FOLDER) or not rest:
        raise _not_a_source(source)
    folder = Path(rest)
    model = model_name(folder.resolve()) if name is None else expect_new_name(name)
    adding = Adding(Registry.of(registry), model, opaque, dry_run)
    return import_folder(folder, source, adding, by_name=by_name, told=told)


def _not_a_source(source: str) -> UsageError:
    hint = "ckpt import folder:PATH"
    path = Path(source)
    if path.is_dir():
        hint = f"ckpt import {quote(f'{FOLDER}{source}')}"
    elif path.is_file():
        hint = f"to register one file:  ckpt register {quote(source)}"
    return UsageError(f"{excerpt(source)!r} is not a source of versions", hint=hint)
