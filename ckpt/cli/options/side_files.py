"""The options of files that are kept beside the weights."""

import re
from collections.abc import Callable
from typing import Any

import click

from ckpt.cli.options import PATH, Session
from ckpt.registry.adding import Added
from ckpt.show.register import left_text
from ckpt.side_files import MOST_BYTES

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _size(_context: click.Context, _option: click.Parameter, text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([kKMGT]?B)?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a size like 100MB")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def side_file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--with`, `--no-files` and `--max`: `with_files`, `folder_files` and `most`."""
    files = click.option(
        "--with",
        "with_files",
        multiple=True,
        type=PATH,
        metavar="PATH",
        help="Keep this file or folder beside the weights, e.g. config.json (repeatable).",
    )
    alone = click.option(
        "--no-files",
        "folder_files",
        flag_value=False,
        default=True,
        help="Do not keep the other files of a checkpoint's folder.",
    )
    most = click.option(
        "--max",
        "most",
        metavar="SIZE",
        default=f"{MOST_BYTES // 10**6}MB",
        show_default=True,
        callback=_size,
        help="The limit of all files beside the weights.",
    )
    return files(alone(most(function)))


def remark_on_left(session: Session, added: Added | None) -> None:
    """Print what a folder holds and the version does not."""
    if added is not None and (text := left_text(added)):
        session.terminal.remark(text)
