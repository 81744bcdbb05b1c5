"""Recipes as TOML files: the package's own by name, others by path. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Union

from ckpt.errors import RefError, UsageError
from ckpt.io.small_file import parse_toml, read_small
from ckpt.train.recipes.recipe import Recipe, Setting, settings

if TYPE_CHECKING:
    from torch import nn

NAMES = ("classic", "fast")
Asked = Union[Recipe, str, "PathLike[str]", "Callable[..., nn.Module]"]


def recipe_for(asked: Asked | None, values: Mapping[str, object]) -> Recipe:
    """The recipe that Python code asks for.

    Args:
        asked: As `make_recipe`; or a definition, its class or its ref, for ``classic`` with that
            model; None for ``classic``.
        values: By the names of `Recipe`; the model may be a class.

    Raises:
        UsageError: Two models are given; or as `make_recipe`.
    """
    if isinstance(asked, PathLike):
        asked = fspath(asked)
    if asked is None or isinstance(asked, Recipe) or _is_recipe(asked):
        return make_recipe("classic" if asked is None else asked, values)
    if "model" in values:
        raise UsageError("two models: the first argument and model=", hint="leave one out")
    return make_recipe("classic", {**values, "model": asked})


def _is_recipe(asked: object) -> TypeGuard[str]:
    """Whether it is a recipe's name or file; a definition has a colon, or is Python code."""
    if not isinstance(asked, str) or asked.endswith(".py"):
        return False
    return ":" not in asked or Path(asked).is_file()


def make_recipe(base: Recipe | str, values: Mapping[str, object]) -> Recipe:
    """A recipe with other values for some settings.

    Args:
        base: A recipe, a name in `NAMES`, or the path of a TOML file.
        values: By the names of `Recipe`.

    Raises:
        RefError: No such recipe.
        UsageError: A name that is not a setting, or a value that is not allowed.
    """
    if isinstance(base, Recipe):
        return replace(base, **checked("train", values))
    return Recipe(**{**read_recipe(base), **checked("train", values)})


def read_recipe(ref: str) -> dict[str, Any]:
    """The values that a recipe file sets, by the names of `Recipe`; raises as `make_recipe`."""
    return checked(ref, _load_toml(ref))


def checked(where: str, values: Mapping[str, object]) -> dict[str, Any]:
    """The values in the types of their settings; `where` begins an error.

    Raises:
        UsageError: A name that is not a setting, or a value of another type.
    """
    known = {setting.name: setting for setting in settings()}
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise UsageError(f"{where}: a recipe has no setting {name!r}", hint=hint)
    return {name: _typed(where, known[name], value) for name, value in values.items()}


def _load_toml(ref: str) -> dict[str, Any]:
    if ref in NAMES:
        text = files("ckpt.train").joinpath(f"recipes/{ref}.toml").read_text(encoding="utf-8")
    else:
        path = Path(ref)
        if not path.is_file():
            hint = f"recipes are {', '.join(NAMES)}, or a TOML file"
            hint = f"--model {ref}  takes a definition" if ":" in ref else hint
            raise RefError(f"{ref}: no such recipe", hint=hint)
        text = read_small(path).decode("utf-8", "replace")
    try:
        return parse_toml(text)
    except ValueError as error:
        raise UsageError(f"{ref}: not a valid TOML file: {error}") from error


def _typed(ref: str, setting: Setting, value: object) -> object:
    """The value in the setting's type: text becomes a path, a whole number any number.

    A class becomes its ref.
    """
    if type(value) is setting.type or (setting.type is Path and isinstance(value, Path | None)):
        return value
    if setting.type is Path and isinstance(value, str):
        return Path(value)
    if setting.type is float and type(value) is int:
        return float(value)
    if setting.name == "model" and callable(value):
        from ckpt.definitions import importable_ref

        return importable_ref(value)
    example = "a path" if setting.type is Path else f"a value like {setting.default!r}"
    raise UsageError(f"{ref}: {setting.name} is {value!r}, expected {example}")
