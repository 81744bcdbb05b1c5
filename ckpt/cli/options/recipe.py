"""The options of `ckpt train` that make a recipe: one for each field of `Recipe`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import (
    Recipe,
    Setting,
    expect_changeable,
    kept,
    option_name,
    settings,
)
from ckpt.train.recipes.recipe_file import NAMES, make_recipe
from ckpt.train.tips.doctor import TRIED, UNUSED


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for the recipe, and one for each of its settings."""
    for setting in reversed(settings()):
        function = _option(setting)(function)
    return click.option(
        "--recipe",
        "recipe_ref",
        default="classic",
        show_default=True,
        metavar="NAME|FILE",
        help=f"Recipe to start from: {', '.join(NAMES)}, or a TOML file; the options below "
        "override it.",
    )(function)


def recipe_of(ref: str, values: dict[str, Any], arguments: dict[str, object], *also: str) -> Recipe:
    """The recipe, overridden by the options that were typed; its model has the arguments.

    `also` are settings that hold although they were not typed.
    """
    typed = _typed()
    recipe = make_recipe(ref, {it: values[it] for it in values if it in typed or it in also})
    if not arguments:
        return recipe
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return replace(recipe, model=f"{recipe.model}({written})")


def resumed_settings(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were typed beside `--resume PATH`.

    Raises:
        UsageError: One that a resumed run keeps from its state file.
    """
    typed = _typed()
    for name in ("recipe_ref", "arguments"):
        if name in typed:
            raise kept(typed[name].removeprefix("--"), str(path))
    changed = {name: values[name] for name in values if name in typed}
    expect_changeable(changed, str(path))
    return changed


def doctors_recipe(
    definition: str, ref: str, values: dict[str, Any], arguments: dict[str, object]
) -> Recipe:
    """The recipe for `--doctor DEFINITION`.

    Raises:
        UsageError: An option of runs, or a setting of which the doctor tries values itself.
    """
    for name, option in _typed().items():
        if name == "model":
            raise UsageError("--model cannot be used with --doctor, which takes the definition")
        if name in TRIED:
            raise UsageError(f"{option} cannot be used with --doctor, which tries it itself")
        if name in UNUSED or name in _OF_RUNS:
            raise UsageError(f"{option} cannot be used with --doctor, which trains nothing")
    return recipe_of(ref, {**values, "model": definition}, arguments, "model")


_OF_RUNS = (
    *("registered", "name", "message", "resume", "save_every", "keep_state"),
    *("metrics", "tensorboard"),
)


def _typed() -> dict[str, str]:
    """The options on the command line, e.g. ``--batch-size``, by the names of their values."""
    context = click.get_current_context()
    return {
        each.name: max(each.opts, key=len)
        for each in context.command.params
        if each.name
        and context.get_parameter_source(each.name) == click.core.ParameterSource.COMMANDLINE
    }


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name = option_name(setting.name)
    kind: Any = setting.type
    if setting.type is Path:
        kind = click.Path(path_type=Path)
    elif setting.allowed.choices and not setting.unit:
        kind = click.Choice(setting.allowed.choices)
    return click.option(
        f"--{name}/--no-{name}" if setting.type is bool else f"--{name}",
        type=kind,
        default=setting.default,
        show_default=setting.default not in (None, ""),
        metavar=setting.unit or None,
        help=setting.help,
    )
