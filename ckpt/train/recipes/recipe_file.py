"""Recipes as TOML files: those of the package by name, and those of people by path. No torch."""

import tomllib
from dataclasses import fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from ckpt.errors import RefError, UsageError
from ckpt.train.recipes.recipe import Recipe

NAMES = ("classic", "fast")


def read_recipe(ref: str) -> dict[str, Any]:
    """The settings of a recipe, by the names that `Recipe` has.

    Args:
        ref: One of the package's, or the path of a file.

    Raises:
        RefError: There is no such recipe.
        UsageError: It has something that is no setting, or of another type.
    """
    if ref in NAMES:
        text = files("ckpt.train").joinpath(f"recipes/{ref}.toml").read_text(encoding="utf-8")
    else:
        path = Path(ref)
        if not path.is_file():
            hint = f"recipes are {', '.join(NAMES)}, or a TOML file"
            raise RefError(f"{ref}: no such recipe", hint=hint)
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        settings = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{ref}: no TOML: {error}") from error
    types = {field.name: field.type for field in fields(Recipe)}
    for name, value in settings.items():
        if name not in types:
            near = get_close_matches(name, types, n=1)
            meant = f"did you mean {near[0]}?" if near else None
            raise UsageError(f"{ref}: a recipe has no {name!r}", hint=meant)
        settings[name] = _typed(ref, name, value)
    return settings


def _typed(ref: str, name: str, value: object) -> object:
    """The value in the type that its default has; a whole number may stand for any number."""
    if name == "data_dir":
        if not isinstance(value, str):
            raise UsageError(f"{ref}: {name} is {value!r}, a path was expected")
        return Path(value)
    default = getattr(Recipe(), name)
    if type(default) is float and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise UsageError(f"{ref}: {name} is {value!r}, a value like {default!r} was expected")
    return value
