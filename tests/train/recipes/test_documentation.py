"""The settings in `ckpt train --help` and docs/recipes.md are the fields of `Recipe`."""

import os
from dataclasses import fields
from pathlib import Path

from ckpt.cli.train import command
from ckpt.train.recipes.recipe import Recipe, Setting, option_name, settings

DOCUMENT = Path(__file__).parents[3] / "docs/recipes.md"
NAMES = [field.name for field in fields(Recipe)]


def test_every_field_has_one_option_with_its_default_and_help() -> None:
    options = [option for option in command.params if option.name in NAMES]
    assert [option.name for option in options] == NAMES
    defaults = {field.name: field.default for field in fields(Recipe)}
    for option in options:
        assert option.name is not None
        assert option.opts == [f"--{option_name(option.name)}"]
        assert option.default == defaults[option.name]
        assert getattr(option, "help", "")


def test_documentation_has_the_table_of_settings() -> None:
    before, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition("\n| ")
    wanted = f"{before}\n{table()}\n"
    if os.environ.get("CKPT_WRITE_README"):
        DOCUMENT.write_text(wanted, encoding="utf-8")
    assert mark
    assert DOCUMENT.read_text(encoding="utf-8") == wanted, "write it with CKPT_WRITE_README=1"


def table() -> str:
    heads = ["Setting", "Default", "Values", "Effect"]
    rows = [heads, ["---"] * len(heads), *(row(setting) for setting in settings())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(setting: Setting) -> list[str]:
    default = "" if setting.default in (None, "") else f"`{setting.default}`"
    if setting.type is bool:
        default = default.lower()
    values = setting.allowed.words.removeprefix("one of ")
    if values == "anything":
        values = setting.unit.lower() or "`true` or `false`"
    cells = [f"`{setting.name}`", default, values, setting.help]
    return [cell.replace("|", "\\|") for cell in cells]
