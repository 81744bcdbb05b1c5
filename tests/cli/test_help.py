"""Every `--help` page is held word for word, as a person sees it in a terminal of 100 columns.

`CKPT_WRITE_HELP=1 pytest tests/cli/test_help.py` writes the pages into `tests/cli/help`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ckpt.cli.commands import COMMANDS, Commands
from tests.cli.support import Run

PAGES = Path(__file__).parent / "help"


def pages(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words before `--help`, for the command and all commands below it."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from pages(below, (*words, name))


ALL = {"-".join(("ckpt", *words)): words for words in pages(Commands(name="ckpt"))}


@pytest.mark.parametrize("name", ALL)
def test_help_page_is_as_it_was(ckpt: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    ran = ckpt(*ALL[name], "--help")
    assert (ran.code, ran.err) == (0, "")
    page = PAGES / f"{name}.txt"
    if os.environ.get("CKPT_WRITE_HELP"):
        page.write_text(ran.out, encoding="utf-8")
    assert ran.out == page.read_text(encoding="utf-8")


def test_no_page_is_of_a_command_that_has_gone() -> None:
    if os.environ.get("CKPT_WRITE_HELP"):
        for page in PAGES.glob("*.txt"):
            if page.stem not in ALL:
                page.unlink()
    assert {page.stem for page in PAGES.glob("*.txt")} == set(ALL)


def test_overview_is_one_line_a_command(ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    overview = ckpt("--help").out
    for name, summary in COMMANDS.items():
        assert f"  {name:<12}{summary}\n" in overview


def reference() -> str:
    """The page of all commands, in the order of the overview."""
    parts = ["# Commands\n\nThe `--help` of every command, as it is.\n"]
    names = sorted(ALL, key=lambda name: ([*COMMANDS, ""].index([*ALL[name], ""][0]), name))
    for name in names:
        page = (PAGES / f"{name}.txt").read_text(encoding="utf-8")
        if ALL[name]:
            parts.append(f"## `{' '.join(('ckpt', *ALL[name]))}`\n\n```text\n{page}```\n")
    return "\n".join(parts)


def test_reference_has_every_page() -> None:
    document = Path(__file__).parents[2] / "docs" / "commands.md"
    if os.environ.get("CKPT_WRITE_HELP"):
        document.write_text(reference(), encoding="utf-8")
    assert document.read_text(encoding="utf-8") == reference()
