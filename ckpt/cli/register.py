"""`ckpt register`."""

from typing import Any

import click

from ckpt.cli.options import Session, ckpt_command, metric_option
from ckpt.cli.options.completed import FILE
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.cli.options.side_files import remark_on_left, side_file_options
from ckpt.formats.opaque import OpaqueWord
from ckpt.ops.register import register
from ckpt.refs import without_secrets
from ckpt.show.look.progress import progress_bar
from ckpt.show.register import added_data, added_text


@ckpt_command(
    examples="ckpt register old.pt --name mnist-cnn -m 'before the refactoring'\n"
    "ckpt register run7.safetensors --metric accuracy=0.992\n"
    "ckpt register run8.pt --name mnist-cnn --alias staging --tag nightly\n"
    "ckpt register net.pt --with config.json --with tokenizer/\n"
    "ckpt register hf://org/repo@v1.0 --name llama",
    writes=True,
)
@click.argument("file", type=FILE)
@click.option("--name", metavar="MODEL", help="The model (default: the file's name).")
@click.option("-m", "--message", default="", help="A message to store with the version.")
@click.option(
    "--parent", metavar="REF", help="The version that it was made from, e.g. by fine-tuning."
)
@click.option("--alias", metavar="NAME", help="Point this alias to the version, in the same write.")
@click.option("--tag", "tags", multiple=True, help="Give it this tag, too (repeatable).")
@metric_option
@side_file_options
@opaque_options
def command(
    session: Session,
    file: str,
    name: str | None,
    message: str,
    parent: str | None,
    alias: str | None,
    tags: tuple[str, ...],
    metrics: dict[str, float],
    opaque: OpaqueWord | None,
    **side_files: Any,
) -> None:
    """Add FILE as the next version of a model.

    Copies its tensors into the store beside registry.json; tensors that are stored already take
    no space. FILE itself is not changed. Registering the same file again adds no version, but its
    message, metrics and labels if they are new.

    If FILE is the folder of a checkpoint, its other files (config.json, a tokenizer) are kept too,
    except further weights and hidden files. FILE can be a URL (https://, hf://ORG/REPO, s3://): the
    version's record keeps where it came from, with its commit and digests.
    """
    with progress_bar(session.terminal, f"registering {without_secrets(file)}") as told:
        added = register(
            file,
            registry=session.registry,
            name=name,
            message=message,
            metrics=metrics,
            parent=parent,
            alias=alias,
            tags=tags,
            opaque=opaque,
            told=told,
            **side_files,
        )
    session.remark_on_added(added)
    session.remark_on_shards(file)
    remark_on_written(session, None, added.dropped)
    remark_on_left(session, added)
    session.show(added, added_text, added_data)
