"""The option that says on what input two classes are run."""

import click

from ckpt.errors import UsageError
from ckpt.prove.specs import InputSpec, parse_input


def _inputs(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[InputSpec, ...]:
    try:
        return tuple(map(parse_input, texts))
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


input_option = click.option(
    "--input",
    "inputs",
    metavar="[NAME=]SHAPE",
    multiple=True,
    callback=_inputs,
    help="An input of --prove: 1x3x224x224, or an argument of forward, input_ids=1x16. A dtype and "
    "a limit of integers can follow: 'input_ids=1x16:int64<1000'. Repeatable. By default "
    "derived from the model.",
)
