"""What is guarded: `guard` in the table ``[tool.ckpt]`` of pyproject.toml."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired, TypedDict

from ckpt.errors import CkptError, UsageError
from ckpt.io.documents.typed_json import Form, expect
from ckpt.migrate.described import USUAL_SECONDS
from ckpt.migrate.folder import settings_above
from ckpt.migrate.migration import MigrationError

CHOICES = ("all", "latest", "aliases")
_EXAMPLE = ("[tool.ckpt]", 'guard = ["models/net.py:Net"]')  # two lines of TOML
_MOST_NAMED = 8  # models in a hint
_PROJECT = "pyproject.toml"

_Seconds = Annotated[float, Form("a positive number of seconds", lambda number: number > 0)]
_Choice = Annotated[str, Form("'all', 'latest' or 'aliases'", CHOICES.__contains__)]
_Definition = Annotated[str, Form("a definition like models/net.py:Net", lambda text: ":" in text)]


class _Table(TypedDict):
    definition: _Definition
    models: NotRequired[list[str]]
    versions: NotRequired[_Choice]
    formerly: NotRequired[list[_Definition]]
    timeout: NotRequired[_Seconds]


class _Settings(TypedDict):
    guard: NotRequired[list[Any]]
    timeout: NotRequired[_Seconds]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A definition whose checkpoints must keep loading.

    Attributes:
        definition: As it is typed.
        models: Of the registry; None for those that were trained with the definition.
        versions: Which of their versions: ``all``, ``latest``, or those that ``aliases`` name.
        seconds: How long the definition may take to build.
        formerly: Earlier names of the definition; None if the settings do not say.
    """

    definition: str
    models: tuple[str, ...] | None = None
    versions: str = "all"
    seconds: float = USUAL_SECONDS
    formerly: tuple[str, ...] | None = None


def settings_for(definition: str, models: Sequence[str]) -> list[str]:
    """Lines of a hint: the settings with which a class must load the versions of some models."""
    if not models:
        return []
    names = json.dumps([*models[:_MOST_NAMED]])
    table = f"{{definition = {json.dumps(definition, ensure_ascii=False)}, models = {names}}}"
    what = "to keep loading versions of the registry, in pyproject.toml"
    more = f" ({len(models) - _MOST_NAMED} more models)" if len(models) > _MOST_NAMED else ""
    return [f"{what}{more}:", _EXAMPLE[0], f"guard = [{table}]"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The guarded definitions, and the folder from which their paths begin."""

    folder: Path
    guarded: tuple[Guarded, ...]


def settings_of(
    names: tuple[str, ...], seconds: float | None = None, *, folder: Path | None = None
) -> Settings:
    """What to guard.

    Args:
        names: Definitions; without any, those of the settings, whose paths begin in the folder of
            their file.
        seconds: How long one may take to build; None for what the settings say.
        folder: Where paths begin, and where the settings are looked for; None is the current one.

    Raises:
        MigrationError: The settings are invalid; the message has the field.
        UsageError: None are named, and there are no settings.
    """
    here = folder or Path.cwd()
    project, settings = settings_above(here)
    known = _read(project / _PROJECT, settings, seconds)
    if not names:
        if not known:
            hint = ("ckpt guard models/net.py:Net", "or for good, in pyproject.toml:", *_EXAMPLE)
            raise UsageError("no definition is named", hint="\n".join(hint))
        return Settings(project, known)
    by_place = {_place(project, it.definition): it for it in known}
    usual = Guarded("", seconds=seconds or settings.get("timeout", USUAL_SECONDS))
    found = [(name, by_place.get(_place(here, name), usual)) for name in names]
    return Settings(here, tuple(replace(it, definition=name) for name, it in found))


def _read(file: Path, settings: Mapping[str, Any], seconds: float | None) -> tuple[Guarded, ...]:
    try:
        expect(dict(settings), _Settings, name="tool.ckpt")
        usual = seconds or settings.get("timeout", USUAL_SECONDS)
        return tuple(
            _guarded(item, f"tool.ckpt.guard[{at}]", usual, seconds)
            for at, item in enumerate(settings.get("guard", ()))
        )
    except CkptError:
        raise
    except ValueError as error:
        raise MigrationError(f"{file}: {error}", hint="e.g.\n" + "\n".join(_EXAMPLE)) from error


def _guarded(item: object, name: str, usual: float, seconds: float | None) -> Guarded:
    if not isinstance(item, dict):
        expect(item, _Definition, name=name)
        return Guarded(str(item), seconds=usual)
    expect(item, _Table, name=name)
    for field in item.keys() - _Table.__annotations__.keys():
        known = ", ".join(_Table.__annotations__)
        raise ValueError(f"{name}: unknown field {field!r}, expected {known}")
    models, formerly = (
        None if field not in item else tuple(item[field]) for field in ("models", "formerly")
    )
    own = seconds or item.get("timeout", usual)
    return Guarded(item["definition"], models, item.get("versions", "all"), own, formerly)


def _place(folder: Path, ref: str) -> tuple[str, str]:
    """A definition, however its path is written."""
    called, bracket, arguments = ref.partition("(")
    place, _, name = called.rpartition(":")
    if place.endswith(".py") or "/" in place:
        place = str((folder / place).resolve())
    return place, name + bracket + arguments


def same_definition(one: str, other: str) -> bool:
    """Whether two refs may name one class: ``net.models:Net`` and ``src/net/models.py:Net``."""
    mine, theirs = map(_parts, (one, other))
    short, long = sorted((mine, theirs), key=len)
    return bool(short) and long[-len(short) :] == short


def _parts(ref: str) -> list[str]:
    place, _, name = ref.partition("(")[0].rpartition(":")
    if place.endswith(".py") or "/" in place:
        parts = [part for part in PurePosixPath(place).with_suffix("").parts if part != "."]
    else:
        parts = place.split(".")
    return [*parts, name] if place else []
