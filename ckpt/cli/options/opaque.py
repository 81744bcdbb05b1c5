"""The options of commands that write objects of unknown classes onward, and their remarks."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from ckpt.cli.options import Session
from ckpt.show.export import dropped_text, stored_once_text, unopened_text
from ckpt.writing.written import Written


def opaque_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--keep-opaque` and `--drop-opaque`; the function gets `opaque`."""
    keep = click.option(
        "--keep-opaque",
        "opaque",
        flag_value="keep",
        default=None,
        help="Write objects of unknown classes byte for byte, though unpickling them runs code.",
    )
    drop = click.option(
        "--drop-opaque",
        "opaque",
        flag_value="drop",
        help="Write without everything that torch.load refuses with weights_only.",
    )
    return keep(drop(function))


def remark_on_written(session: Session, written: Written | None, dropped: Sequence[str]) -> None:
    """Print what was dropped, which tensors are stored once, and whether torch will refuse it."""
    for text in (dropped_text(dropped), stored_once_text(written), unopened_text(written)):
        if text:
            session.terminal.remark(text)
