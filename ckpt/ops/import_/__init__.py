"""Import: a folder of checkpoints, a model of MLflow, or an OCI artifact, becomes versions."""

import re
from pathlib import Path
from shlex import quote

from ckpt.errors import UsageError, excerpt
from ckpt.formats.opaque import OpaqueWord
from ckpt.io.files import Told, untold
from ckpt.ops.import_.adding import Adding
from ckpt.ops.import_.folder import PREFIX as FOLDER
from ckpt.ops.import_.folder import import_folder
from ckpt.ops.import_.imported import Imported
from ckpt.ops.import_.of_mlflow import PREFIX as MLFLOW
from ckpt.ops.import_.of_mlflow import import_mlflow, model_name_of
from ckpt.ops.register import model_name
from ckpt.refs import expect_new_name
from ckpt.registry.registry import InRegistry, Registry
from ckpt.remote.oci.reference import is_oci, parse

_SCHEMES = ("mlflow", "models")  # the second is MLflow's own
_WANDB = """\
wandb artifact get ENTITY/PROJECT/NAME:v0 --root runs/v0  for each version, then
ckpt import folder:runs --by-name --name NAME"""


def import_versions(
    source: str,
    *,
    name: str | None = None,
    tracking: str | None = None,
    by_name: bool = False,
    opaque: OpaqueWord | None = None,
    dry_run: bool = False,
    registry: InRegistry | None = None,
    told: Told = untold,
) -> Imported:
    """Add the checkpoints of a folder or of a model in MLflow, oldest first, or an OCI artifact.

    Their times become those of the versions; MLflow's versions bring their metrics, parameters,
    descriptions, tags and aliases, and are read by MLflow's own client. What the model has already,
    or had, is not added again, and an alias that is or was here is not changed: an import may be
    repeated. An artifact is one version; one that `export` wrote keeps its digest, notes and
    metrics. Nothing in a checkpoint is run.

    Args:
        source: ``folder:PATH``, with all checkpoints below it, ``mlflow:models/NAME``, or
            ``oci://host/team/model:v3``.
        name: The model; None takes the name of the folder, of MLflow's model, or of the repository.
        tracking: The URI of MLflow's tracking store; None takes `MLFLOW_TRACKING_URI`.
        by_name: Order the files of a folder by their names, not by their times.
        opaque: ``keep`` stores objects of unknown classes byte for byte, ``drop`` stores files
            without them. None makes those plain that have a plain form, such as a module, and
            leaves files with others out.
        dry_run: Whether to read only, and say what would be added.
        registry: The registry; None finds it as the command line does.
        told: Called with the bytes done and the bytes in all.

    Raises:
        RefError: There is no such folder, store, model or artifact, or nothing to import.
        RemoteError: MLflow, its server or the OCI registry refuses.
        IntegrityError: An artifact has other bytes than its digests name.
        UsageError: `source` names something else.

    Example:
        >>> imported = ckpt.import_versions("folder:runs", name="digits")
        >>> [(item.name, item.did, item.version) for item in imported.items]
        [('epoch_1.pt', 'new', 'v1'), ('epoch_2.pt', 'new', 'v2')]
    """
    kind, _, rest = source.partition(":")
    if kind == "wandb":
        raise UsageError(f"{excerpt(source)}: W&B is not supported", hint=_WANDB)
    registry = Registry.of(registry)
    if source.startswith(MLFLOW) and (registered := source.removeprefix(MLFLOW)):
        if by_name:
            raise UsageError("--by-name is for folders; versions of MLflow have an order")
        model = model_name_of(registered) if name is None else expect_new_name(name)
        adding = Adding(registry, model, opaque, dry_run)
        return import_mlflow(registered, source, tracking, adding, told)
    if is_oci(source):
        return _import_artifact(source, name, tracking, by_name, opaque, dry_run, registry, told)
    if not source.startswith(FOLDER) or not rest:
        raise _not_a_source(source)
    if tracking is not None:
        raise UsageError(f"--from is for {MLFLOW}NAME, not for a folder")
    folder = Path(rest)
    model = model_name(folder.resolve()) if name is None else expect_new_name(name)
    adding = Adding(registry, model, opaque, dry_run)
    return import_folder(folder, source, adding, by_name=by_name, told=told)


def _import_artifact(
    source: str,
    name: str | None,
    tracking: str | None,
    by_name: bool,
    opaque: OpaqueWord | None,
    dry_run: bool,
    registry: Registry,
    told: Told,
) -> Imported:
    from ckpt.ops.import_.of_oci import import_oci

    if tracking is not None or by_name:
        raise UsageError("--from and --by-name are not for oci://")
    reference = parse(source)
    model = expect_new_name(reference.base if name is None else name)
    return import_oci(reference, source, Adding(registry, model, opaque, dry_run), told)


def _not_a_source(source: str) -> UsageError:
    hint = f"ckpt import folder:PATH,  {MLFLOW}NAME  or  oci://HOST/TEAM/MODEL:TAG"
    path, words = Path(source), re.split("[/:]", source.rstrip("/:"))
    if words[0] in _SCHEMES and words[-1] not in _SCHEMES:
        hint = f"ckpt import {quote(f'{MLFLOW}{words[-1]}')}"
    elif path.is_dir():
        hint = f"ckpt import {quote(f'{FOLDER}{source}')}"
    elif path.is_file():
        hint = f"to register one file:  ckpt register {quote(source)}"
    return UsageError(f"{excerpt(source)!r} is not a source of versions", hint=hint)
