"""The options that allow a partial fit."""

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--allow-missing",
        multiple=True,
        metavar="REGEX",
        help="With --to or --check: keys that match may be missing in the result; they stay new "
        "in the class.",
    ),
    click.option(
        "--allow-unexpected",
        multiple=True,
        metavar="REGEX",
        help="With --to or --check: tensors whose keys match stay in the result although the class "
        "lacks them.",
    ),
    click.option(
        "--allow-shape",
        multiple=True,
        metavar="REGEX",
        help="With --to or --check: leave tensors out whose keys match and whose shape is another "
        "one in the class, as no load_state_dict takes them; they stay new in the class.",
    ),
)


def partial_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that allow a partial fit."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
