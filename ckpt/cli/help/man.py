r"""Manual pages, made of the same texts as `--help`.

Source: man(7) of Linux and groff_man(7): `TH`, `SH`, `TP`, `nf`; groff_char(7): ``\[u2026]``.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

import click

from ckpt import __version__


def pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """Name and text of the page of a command, ``ckpt-rename.1``, and of all commands below it."""
    name = context.command_path.replace(" ", "-")
    yield f"{name}.1", "\n".join(chain(*_sections(context, name))) + "\n"
    for each in _below(context):
        yield from pages(each)


def _below(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield click.Context(command, info_name=name, parent=context)


def _sections(context: click.Context, name: str) -> Iterator[list[str]]:
    command = context.command
    day = datetime.now(UTC).date().isoformat()
    yield [f'.TH "{_safe(name.upper())}" 1 "{day}" "ckpt {__version__}" "ckpt"']
    yield [".SH NAME", f"{_safe(name)} \\- {_safe(command.get_short_help_str(limit=200))}"]
    yield [".SH SYNOPSIS", f".B {_safe(context.command_path)}"]
    yield [_safe(" ".join(command.collect_usage_pieces(context)))]
    yield [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [each.get_help_record(context) for each in options]
    yield [".SH OPTIONS", *_terms([each for each in records if each is not None])]
    if below := list(_below(context)):
        yield [".SH COMMANDS"]
        yield _terms(
            [(each.info_name or "", each.command.get_short_help_str(200)) for each in below]
        )
    if command.epilog:
        yield [".SH EXAMPLES", *_paragraphs(command.epilog.replace("Examples:\n", "", 1))]
    if context.parent is not None:
        yield [".SH SEE ALSO", f".BR {_safe(context.parent.command_path.replace(' ', '-'))} (1)"]


def _paragraphs(text: str) -> list[str]:
    r"""Paragraphs; click leaves those alone that begin with ``\b``, and so does this."""
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        lines.append(".PP")
        if paragraph.startswith("\b\n"):
            kept = [_safe(line) for line in paragraph[2:].rstrip().split("\n")]
            lines += [".nf", *kept, ".fi"]
        else:
            lines.append(_safe(" ".join(paragraph.split())))
    return lines[1:]  # a section begins a paragraph


def _terms(records: list[tuple[str, str]]) -> list[str]:
    return [line for term, text in records for line in (".TP", f".B {_safe(term)}", _safe(text))]


def _safe(text: str) -> str:
    r"""A line of text in which nothing is a request: ``\-`` can be copied as an option's minus."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text
