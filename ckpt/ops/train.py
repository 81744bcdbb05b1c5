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
from typing import TYPE_CHECKING, Any, ClassVar

from ckpt.definitions.importing import expect_class
from ckpt.errors import RefError, UsageError
from ckpt.io.documents.strict_json import plain
from ckpt.opened import parse_named
from ckpt.ops.register import register
from ckpt.printed import Printed
from ckpt.refs import FileRef, UrlRef, expect_new_name
from ckpt.registry.adding import Added
from ckpt.registry.registry import InRegistry, Registry
from ckpt.train import Progress, accumulate, doctor
from ckpt.train.recipes.outputs import Outputs
from ckpt.train.recipes.recipe import Recipe, expect_changeable, kept
from ckpt.train.recipes.recipe_file import Asked, make_recipe, recipe_for
from ckpt.train.watch.events import Callback, Trained, ignore

if TYPE_CHECKING:
    from torch import Tensor

    from ckpt.train.state import State

SAVE_MINUTES = 5.0


@dataclass(frozen=True, slots=True, repr=False)
class Training(Printed):
    """The result of a training.

    Attributes:
        trained: The run.
        path: The file with the weights; None if only the registry has them.
        added: The version that was added, if it was registered.
    """

    VIEW: ClassVar = "ckpt.show.train:training_text"

    trained: Trained
    path: Path | None
    added: Added | None


def train(
    recipe: Asked | None = None,
    out: Path | str | None = None,
    *,
    registry: InRegistry | None = None,
    register_result: bool | None = None,
    name: str | None = None,
    message: str | None = None,
    replace_out: bool = False,
    state_file: Path | str | None = None,
    save_minutes: float | None = None,
    keep_state: bool | None = None,
    resume: "State | Path | str | None" = None,
    callback: Callback = ignore,
    note: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Training | None:
    """Train by a recipe; under torchrun the processes share every effective batch.

        ckpt.train(Net, dataset="digits", epochs=1, callback=ckpt.train.Progress())

    `recipe` is a class, its ref (``net.py:Net``), or a recipe, its name or its file, by default
    ``classic``, by which a class is trained; `settings` override it. The weights go to `out`, by
    default a file named after the model. With `register_result` they become the next version of
    the model `name`, by default named after the definition, and go to a file only with `out`. The
    state of the run is in `state_file`, by default ``MODEL.state.pt``: written every
    `save_minutes` (5) and when a signal ends the run, removed when it is done unless `keep_state`.

    `resume`, the state of a run or its file, continues that run: what is not given is as before,
    and of the `settings` it takes data_dir, device and epochs. `callback` gets every event of the
    run: `ckpt.train.Progress()` prints a line an epoch, by default nothing is printed. `note` gets
    a line about rescued weights or a parent that is gone.

    `ckpt.train.accumulate` is for a loop of your own, `ckpt.train.doctor` measures a model.

    Returns:
        None in all processes of torchrun but rank 0.

    Raises:
        UsageError: The file already exists, or the state of a run that `resume` is not; or a
            setting is unknown, not allowed, or not one of those for `resume`.
        InterruptedTrainingError: A signal ended it; the state is in `state_file`.
    """
    if isinstance(callback, type):
        name = callback.__name__
        raise UsageError(f"callback is the class {name} itself", hint=f"callback={name}()")
    resumed = _state(resume)
    made = _recipe_of(recipe, settings, resumed)
    asked = Outputs(
        out=None if out is None else Path(out), registers=register_result, name=name,
        message=message, save_minutes=save_minutes, keeps_state=keep_state,
    )  # fmt: skip
    if resumed is not None:
        asked = asked.or_else(resumed.outputs)
    if isinstance(resume, Path | str):
        state_file = state_file or resume
    job = _job(made, asked, Registry.of(registry), state_file, note)
    return job.run(made, resumed, callback, replace=replace_out)


def _state(resume: "State | Path | str | None") -> "State | None":
    if not isinstance(resume, Path | str):
        return resume
    from ckpt.train.state import read_state

    return read_state(Path(resume))


def _recipe_of(
    recipe: Asked | None, settings: Mapping[str, object], resumed: "State | None"
) -> Recipe:
    """The recipe with these settings; a run that goes on has its own, and may change a few."""
    if resumed is None:
        return recipe_for(recipe, settings)
    if recipe is not None:
        raise kept("recipe", "the run")
    expect_changeable(settings, "the run")
    return make_recipe(resumed.recipe, settings)


def _job(
    recipe: Recipe,
    asked: Outputs,
    registry: Registry,
    state_file: Path | str | None,
    note: Callable[[str], None],
) -> "_Job":
    """Decide where weights and states go."""
    expect_class(Path(recipe.model))
    model = expect_new_name(_model_name(recipe.model) if asked.name is None else asked.name)
    if asked.name and not asked.registers:
        raise UsageError("--name requires --register")
    hidden = bool(asked.registers) and asked.out is None
    if recipe.keep == "both" and hidden:
        raise UsageError("--keep both writes two files but registers one: add -o FILE")
    path = None if hidden else asked.out or Path(f"{model}.pt")
    return _Job(registry, model, path, asked, Path(state_file or f"{model}.state.pt"), note)


# ``ckpt.train`` is this function, and not the package of that name, which has these, too.
vars(train).update(accumulate=accumulate, doctor=doctor, Progress=Progress)


@dataclass(frozen=True, slots=True)
class _Job:
    """The way of the weights: `path` is their file, None if only the registry has them."""

    registry: Registry
    model: str
    path: Path | None
    asked: Outputs
    state_file: Path
    note: Callable[[str], None]

    def run(
        self,
        recipe: Recipe,
        resumed: "State | None",
        callback: Callback,
        *,
        replace: bool,
    ) -> Training | None:
        from ckpt.train import run
        from ckpt.train.processes import started_by_torchrun
        from ckpt.train.state import Keeper

        if resumed is None and self.state_file.exists():
            hint = (
                f"remove it to start again; to continue it:  ckpt train --resume {self.state_file}"
            )
            raise UsageError(f"{self.state_file}: holds the state of a run", hint=hint)
        initial = None
        if recipe.init and resumed is None:
            recipe, initial = _initial(self.registry, recipe)
        processes = started_by_torchrun()
        minutes = SAVE_MINUTES if self.asked.save_minutes is None else self.asked.save_minutes
        keeper = Keeper(
            self.state_file, every=60 * minutes, processes=processes, outputs=self.asked
        )
        with self._destination() as path:
            trained = run.train(
                recipe,
                path,
                callback=callback,
                replace=replace,
                keeper=keeper,
                resumed=resumed,
                processes=processes,
                initial=initial,
            )
            if trained is None:
                return None
            added = self._register(trained, recipe) if self.asked.registers else None
        if not self.asked.keeps_state:
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
            message=self.asked.message or "",
            metrics={name: value for name, value in found.items() if isfinite(value)},
            made_by=f"train {trained.record['dataset']['name']}, {recipe.epochs} ep",
            record={"training": trained.record, "curves": plain(trained.series)},
            definition_source=trained.definition_source,
            parent=self._parent(recipe.init),
        )

    def _parent(self, init: str) -> str | None:
        """The version that the run started from, if it did from one."""
        if not init or isinstance(parse_named(init, self.registry), FileRef | UrlRef):
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
