"""Train: a recipe becomes weights, in a file or as the next version of a model.

Law: the weights of a training that was to be registered are kept, whatever fails after it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ckpt.errors import RefError, UsageError
from ckpt.io.strict_json import plain
from ckpt.opened import expect_class, parse_named
from ckpt.ops.register import register
from ckpt.refs import FileRef, expect_new_name
from ckpt.registry.registry import Added, Registry
from ckpt.train import accumulate, doctor
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Callback, Trained, ignore

if TYPE_CHECKING:
    from torch import Tensor

    from ckpt.train.state import State

SAVE_MINUTES = 5.0


@dataclass(frozen=True, slots=True)
class Training:
    """The result of a training.

    Attributes:
        trained: The run.
        path: The file with the weights; None if only the registry has them.
        added: The version that was added, if it was registered.
    """

    trained: Trained
    path: Path | None
    added: Added | None


def train(
    recipe: Recipe,
    out: Path | str | None = None,
    *,
    registry: Registry | None = None,
    register_result: bool = False,
    name: str | None = None,
    message: str = "",
    replace_out: bool = False,
    state_file: Path | None = None,
    save_minutes: float = SAVE_MINUTES,
    resumed: "State | None" = None,
    callback: Callback = ignore,
    note: Callable[[str], None] = lambda _: None,
) -> Training | None:
    """Train by a recipe; under torchrun the processes share every effective batch.

    The weights go to `out`, by default a file named after the model. With `register_result` they
    become the next version of the model `name`, by default named after the definition, and go to
    a file only with `out`. The state of the run is in `state_file`, by default
    ``MODEL.state.pt``: written every `save_minutes` and when a signal ends the run, removed when
    it is done. `resumed` is what `ckpt.train.state.read_state` reads from there; `recipe` is its
    own then. `callback` gets every event of the run, and `note` a line or two about rescued
    weights, and about a parent that is gone.

    Returns:
        None in all processes of torchrun but rank 0.

    Raises:
        UsageError: The file already exists, or the state of a run that `resumed` is not.
        InterruptedTrainingError: A signal ended it; the state is in `state_file`.
    """
    expect_class(Path(recipe.model))
    model = expect_new_name(_model_name(recipe.model) if name is None else name)
    if name and not register_result:
        raise UsageError("--name requires --register")
    hidden = register_result and out is None
    if recipe.keep == "both" and hidden:
        raise UsageError("--keep both writes two files but registers one: add -o FILE")
    path = None if hidden else Path(f"{model}.pt" if out is None else out)
    state = state_file or Path(f"{model}.state.pt")
    if resumed is None and state.exists():
        hint = f"ckpt train --resume {state}  continues it; remove the file to start a new run"
        raise UsageError(f"{state}: holds the state of an interrupted run", hint=hint)
    job = _Job(registry or Registry(), model, path, register_result, message, state, note)
    return job.run(recipe, resumed, callback, save_minutes=save_minutes, replace=replace_out)


# ``ckpt.train`` is this function, and not the package of that name.
train.accumulate = accumulate  # type: ignore[attr-defined]
train.doctor = doctor  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Job:
    """The way of the weights: `path` is their file, None if only the registry has them."""

    registry: Registry
    model: str
    path: Path | None
    registers: bool
    message: str
    state_file: Path
    note: Callable[[str], None]

    def run(
        self,
        recipe: Recipe,
        resumed: "State | None",
        callback: Callback,
        *,
        save_minutes: float,
        replace: bool,
    ) -> Training | None:
        from ckpt.train import run
        from ckpt.train.processes import started_by_torchrun
        from ckpt.train.state import Keeper

        initial = None
        if recipe.init and resumed is None:
            recipe, initial = _initial(self.registry, recipe)
        processes = started_by_torchrun()
        with self._destination() as path:
            trained = run.train(
                recipe,
                path,
                callback=callback,
                replace=replace,
                keeper=Keeper(self.state_file, every=60 * save_minutes, processes=processes),
                resumed=resumed,
                processes=processes,
                initial=initial,
            )
            if trained is None:
                return None
            added = self._register(trained, recipe) if self.registers else None
        self.state_file.unlink(missing_ok=True)
        return Training(trained, self.path, added)

    @contextmanager
    def _destination(self) -> Iterator[Path]:
        """The file for the weights: `path`, or a temporary one for the registry.

        The temporary one is moved to the current folder if anything fails after the training.
        """
        if self.path is not None:
            yield self.path
            return
        with TemporaryDirectory(prefix="ckpt-train-") as folder:
            path = Path(folder) / f"{self.model}.pt"
            try:
                yield path
            except BaseException:
                if path.exists():
                    saved = Path.cwd() / f"{self.model}.{token_hex(4)}.pt"
                    shutil.move(path, saved)
                    resume = f"ckpt train --register --resume {self.state_file}"
                    self.note(f"the weights are in {saved}\n{resume}  tries to register them again")
                raise

    def _register(self, trained: Trained, recipe: Recipe) -> Added:
        found = {"accuracy": trained.test_accuracy, "loss": trained.test_loss}
        return register(
            str(trained.path),
            registry=self.registry,
            name=self.model,
            message=self.message,
            metrics={name: value for name, value in found.items() if isfinite(value)},
            made_by=f"train {trained.record['dataset']['name']}, {recipe.epochs} ep",
            record={"training": trained.record, "curves": plain(trained.series)},
            definition_source=trained.definition_source,
            parent=self._parent(recipe.init),
        )

    def _parent(self, init: str) -> str | None:
        """The version that the run started from, if it did from one."""
        if not init or isinstance(parse_named(init, self.registry), FileRef):
            return None
        try:
            return self.registry.version(init).ref
        except RefError:  # removed while the run went on
            self.note(f"{init} was removed during the run; the new version has no parent")
            return None


def _initial(registry: Registry, recipe: Recipe) -> "tuple[Recipe, Mapping[str, Tensor]]":
    """The recipe with its `init` resolved to a ref that does not move, and those weights."""
    from ckpt.ops.load import open as open_state_dict

    with open_state_dict(recipe.init, registry=registry) as state:
        tensors = {key: tensor.clone() for key, tensor in state.items()}
        return replace(recipe, init=state.name), tensors


def _model_name(definition: str) -> str:
    """``models/mnist_cnn.py:Net`` and ``ckpt.models.mnist_cnn:Net(width=2)`` give ``mnist-cnn``."""
    place, colon, _ = definition.partition("(")[0].rpartition(":")
    if not colon:
        hint = "write path/to/file.py:Class or package.module:Class"
        raise UsageError(f"{definition}: not a definition", hint=hint)
    place = place.replace("\\", "/").removesuffix(".py")
    return place.rpartition("/")[2].rpartition(".")[2].replace("_", "-")
