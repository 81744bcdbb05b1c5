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
    recipe = make_recipe(ref, _typed(values, *also))
    if not arguments:
        return recipe
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return replace(recipe, model=f"{recipe.model}({written})")


def resumed_settings(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were typed beside `--resume PATH`.

    Raises:
        UsageError: One that a resumed run keeps from its state file.
    """
    for option, name in (("recipe", "recipe_ref"), ("arg", "arguments")):
        if _is_typed(name):
            raise kept(option, str(path))
    typed = _typed(values)
    expect_changeable(typed, str(path))
    return typed


def _typed(values: dict[str, Any], *also: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in also or _is_typed(name)}


def expect_only_recipe() -> None:
    """Refuse beside `--doctor` what a run needs: it trains nothing."""
    others = (
        *("registered", "name", "message", "resume", "save_every", "keep_state"),
        *("metrics", "tensorboard"),
    )
    if _is_typed("model"):
        raise UsageError("--model cannot be used with --doctor, which takes the definition")
    for name in others:
        if _is_typed(name):
            option = {"registered": "register"}.get(name) or option_name(name)
            raise UsageError(f"--{option} cannot be used with --doctor, which trains nothing")


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


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
