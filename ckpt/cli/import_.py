"""`ckpt import`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import MODEL, SOURCE
from ckpt.cli.options.opaque import opaque_options
from ckpt.errors import FormatError
from ckpt.formats.opaque import OpaqueWord
from ckpt.ops.import_ import import_versions
from ckpt.registry.places import FILE_NAME
from ckpt.show.import_ import imported_data, imported_text, left_text, remarks_text
from ckpt.show.look.progress import progress_bar


@ckpt_command(
    examples="ckpt import folder:runs --dry-run\n"
    "ckpt import folder:runs --name mnist-cnn\n"
    "ckpt import folder:. --by-name --name mnist-cnn\n"
    "ckpt import mlflow:models/net --from sqlite:///mlflow.db\n"
    "ckpt import oci://registry.example/team/net:v3",
    writes=True,
)
@click.argument("source", type=SOURCE)
@click.option("--name", metavar="MODEL", type=MODEL, help="The model (default: the name there).")
@click.option(
    "--from",
    "tracking",
    metavar="URI",
    help="MLflow's tracking store (default: MLFLOW_TRACKING_URI).",
)
@click.option(
    "--by-name",
    is_flag=True,
    help="Order the files of a folder by their names, not by their times.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be added, and write nothing.")
@opaque_options
def command(
    session: Session,
    source: str,
    name: str | None,
    tracking: str | None,
    by_name: bool,
    dry_run: bool,
    opaque: OpaqueWord | None,
) -> None:
    """Add many checkpoints as versions of a model, oldest first; repeat it to add new ones.

    folder:PATH takes every checkpoint file in PATH and below. A folder with config.json or an index
    of shards is one checkpoint with its side files. The same bytes are one version: best.pt and
    last.pt become aliases. Each version has the time of its file.

    mlflow:models/NAME takes the versions of a registered model, with their times, authors, metrics,
    parameters, descriptions, tags and aliases. The number in MLflow is in the record of a version.

    oci://HOST/TEAM/MODEL:TAG takes one artifact of an OCI registry, as ckpt export -o oci:// or
    other tools for CNCF ModelPack write it. A version of ckpt keeps its digest, record, notes and
    metrics.

    Checkpoints that cannot be imported are listed; the exit code is 3 then. Nothing in them is run:
    a pickled module is stored as its state_dict, unless --keep-opaque is given.
    """
    with progress_bar(session.terminal, "importing") as told:
        imported = import_versions(
            source,
            name=name,
            tracking=tracking,
            by_name=by_name,
            opaque=opaque,
            dry_run=dry_run,
            registry=session.registry,
            told=told,
        )
    if imported.created_registry is not None:
        path = imported.created_registry / FILE_NAME
        session.terminal.remark(f"created a registry: {path}")
    for text in (remarks_text(imported), left_text(imported)):
        if text:
            session.terminal.remark(text)
    session.show(imported, imported_text, imported_data)
    if imported.left:
        click.get_current_context().exit(FormatError.exit_code)
