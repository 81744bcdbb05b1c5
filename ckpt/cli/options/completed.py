"""The types of arguments that a shell can complete: refs, models, aliases and keys.

Law: completing reads no more than the index and a manifest, and fails in silence.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckpt.errors import CkptError
from ckpt.refs import SUFFIXES, VersionRef
from ckpt.registry.registry import Registry

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    TextType = click.ParamType[str]
else:
    TextType = click.ParamType  # not generic before click 8.4

Candidates = Callable[[Registry], Iterable[str]]


class Completed(TextType):
    """Text, for which a shell offers the candidates of the registry, and files.

    Args:
        candidates: What the registry offers.
        files: Whether files are offered beside it: checkpoints, or any if nothing else matches.
    """

    name = "text"

    def __init__(self, candidates: Candidates, *, files: bool = False) -> None:
        self._candidates, self._files = candidates, files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """The candidates that begin with what was typed."""
        from click.shell_completion import CompletionItem

        found = [each for each in self._known(ctx) if each.startswith(incomplete)]
        if self._files:
            found += _checkpoints(incomplete)
        if self._files and not found:
            return [CompletionItem(incomplete, type="file")]  # the shell looks for them
        return [CompletionItem(each) for each in found]

    def _known(self, ctx: click.Context) -> list[str]:
        try:
            return [*self._candidates(Registry(ctx.params.get("registry_folder")))]
        except CkptError:  # no registry, or a damaged one: there is nothing to offer
            return []


def _checkpoints(incomplete: str) -> list[str]:
    folder, name = os.path.split(incomplete)
    try:
        names = sorted(path.name for path in Path(folder or ".").iterdir())
    except OSError:
        return []
    return [
        os.path.join(folder, each)  # noqa: PTH118 - keeps what was typed, ./ too
        for each in names
        if each.startswith(name) and each.endswith(tuple(SUFFIXES))
    ]


def _refs(registry: Registry) -> Iterable[str]:
    """Aliases, then versions, newest first; without the model too if it is the only one."""
    models = registry.index().present.values()
    for model in models:
        yield from (f"{model.name}@{alias}" for alias in model.aliases)
    versions = registry.versions()
    if len(models) == 1:
        yield from (each.label for each in versions)
    yield from (each.ref for each in versions)


def _models(registry: Registry) -> Iterable[str]:
    return registry.index().present


def _aliases(registry: Registry) -> Iterable[str]:
    models = registry.index().models.values()
    return sorted({alias for model in models for alias in model.aliases})


def _keys(registry: Registry) -> Iterable[str]:
    """Those of the latest version of the only model."""
    return [entry.key for entry in registry.manifest(registry.version(VersionRef(None))).entries]


def _sources(_registry: Registry) -> Iterable[str]:
    """The folders here, and where the name of a model of MLflow begins."""
    try:
        folders = sorted(path.name for path in Path().iterdir() if path.is_dir())
    except OSError:
        folders = []
    return [*(f"folder:{name}" for name in folders if name[0] != "."), "mlflow:models/", "oci://"]


REF = Completed(_refs, files=True)
VERSION = Completed(_refs)
FILE = Completed(lambda _registry: (), files=True)
MODEL = Completed(_models)
SOURCE = Completed(_sources)
ALIAS = Completed(_aliases)
KEY = Completed(_keys)
