"""`ckpt show`."""

from functools import partial

import click

from ckpt.cli.options import Session, arg_option, ckpt_command
from ckpt.cli.options.completed import REF
from ckpt.ops.show import show
from ckpt.show.show import shown_data, shown_text


@ckpt_command(
    examples="ckpt show v1\nckpt show old.pt\nckpt show run7.pt::model --json\n"
    "ckpt show llama.safetensors --tree\nckpt show download.pt --deep\n"
    "ckpt show models/mnist_cnn.py:Net\nckpt show hf://org/repo\n"
    "ckpt show https://host/net.safetensors",
    reads=True,
)
@click.argument("ref", type=REF)
@click.option(
    "--tree", is_flag=True, help="Show the modules as a tree, with keys, elements and sizes."
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read everything: verify the checksums of a file or the digests of a version, show the "
    "digest of every tensor, count NaN and Inf. Exits with 3 or 4 if anything is damaged.",
)
@arg_option
def command(
    session: Session, ref: str, tree: bool, deep: bool, arguments: dict[str, object]
) -> None:
    """Show the tensors and the record of a version, file or definition.

    Reads only the header of a file, unless --deep. Never executes anything in it. REF can be a URL:
    https://, hf://ORG/REPO, s3://; URL#net@prod is a version of a registry there.
    """
    shown = show(ref, registry=session.registry, deep=deep, arguments=arguments)
    session.remark_on_shards(ref)
    text, data = shown_text, shown_data
    if tree:
        from ckpt.show.show.tree import tree_data, tree_text

        text, data = tree_text, tree_data
    session.show(shown, partial(text, width=session.terminal.width), data)
