"""Train: a recipe becomes weights, in a file or as the next version of a model.

Law: the weights of a training that was to be registered are kept, whatever fails after it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ckpt.errors import RefError, UsageError
from ckpt.ops.register import register
from ckpt.refs import FileRef, expect_name, parse_ref
from ckpt.registry.registry import Added, Registry
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Callback, Trained, ignore

if TYPE_CHECKING:
    from torch import Tensor

    from ckpt.train.processes import Processes
    from ckpt.train.state import Keeper, State

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

    Args:
        recipe: The settings.
        out: The file to write; by default one named after the model, and none if the result is
            registered.
        registry: Versions are looked up and added here.
        register_result: Make the weights the next version of a model.
        name: That model; by default named after the definition.
        message: Describes the version.
        replace_out: Whether to replace an existing file.
        state_file: The state is written here at intervals, and when a signal ends the run; by
            default ``MODEL.state.pt``. It is removed when the run is done.
        save_minutes: The interval.
        resumed: The state to continue from, as `ckpt.train.state.read_state` reads it from
            `state_file`; `recipe` is its own then.
        callback: Gets every event of the run.
        note: Gets a line or two about rescued weights, and about a parent that is gone.

    Returns:
        None in all processes of torchrun but rank 0.

    Raises:
        UsageError: The file already exists, or the state of a run that `resumed` is not.
        InterruptedTrainingError: A signal ended it; the state is in `state_file`.
    """
    from ckpt.train import run
    from ckpt.train.processes import started_by_torchrun

    registry, out = registry or Registry(), None if out is None else Path(out)
    model = expect_name(_model_name(recipe.model) if name is None else name)
    hidden = register_result and out is None
    if name and not register_result:
        raise UsageError("--name requires --register")
    if recipe.keep == "both" and hidden:
        raise UsageError("--keep both writes two files but registers one: add -o FILE")
    initial = None
    if recipe.init and resumed is None:
        recipe, initial = _initial(registry, recipe)
    state_file, processes = state_file or Path(f"{model}.state.pt"), started_by_torchrun()
    keeper = _keeper(state_file, save_minutes, processes, new=resumed is None)
    with _destination(out, model, state_file, note, hidden=hidden) as path:
        trained = run.train(
            recipe,
            path,
            callback=callback,
            replace=replace_out,
            keeper=keeper,
            resumed=resumed,
            processes=processes,
            initial=initial,
        )
        if trained is None:
            return None
        added = None
        if register_result:
            added = _registered(registry, trained, recipe, model, message, note)
    state_file.unlink(missing_ok=True)
    return Training(trained, None if hidden else path, added)


def _initial(registry: Registry, recipe: Recipe) -> "tuple[Recipe, Mapping[str, Tensor]]":
    """The recipe with its `init` resolved to a ref that does not move, and those weights."""
    from ckpt.ops.load import open as open_state_dict

    with open_state_dict(recipe.init, registry=registry) as state:
        tensors = {key: tensor.clone() for key, tensor in state.items()}
        return replace(recipe, init=state.name), tensors


def _keeper(path: Path, minutes: float, processes: "Processes", *, new: bool) -> "Keeper":
    if new and path.exists():
        raise UsageError(
            f"{path}: holds the state of an interrupted run",
            hint=f"ckpt train --resume {path}  continues it; remove the file to start a new run",
        )
    from ckpt.train.state import Keeper

    return Keeper(path, every=60 * minutes, processes=processes)


@contextmanager
def _destination(
    out: Path | None, model: str, state_file: Path, note: Callable[[str], None], *, hidden: bool
) -> Iterator[Path]:
    """The file for the weights: the named one, or a temporary one for the registry.

    The temporary one is moved to the current folder if anything fails after the training.
    """
    if not hidden:
        yield out or Path(f"{model}.pt")
        return
    with TemporaryDirectory(prefix="ckpt-train-") as folder:
        path = Path(folder) / f"{model}.pt"
        try:
            yield path
        except BaseException:
            if path.exists():
                saved = Path.cwd() / f"{model}.{token_hex(4)}.pt"
                shutil.move(path, saved)
                resume = f"ckpt train --register --resume {state_file}"
                note(f"the weights are in {saved}\n{resume}  tries to register them again")
            raise


def _registered(
    registry: Registry,
    trained: Trained,
    recipe: Recipe,
    model: str,
    message: str,
    note: Callable[[str], None],
) -> Added:
    return register(
        str(trained.path),
        registry=registry,
        name=model,
        message=message,
        metrics={"accuracy": trained.test_accuracy, "loss": trained.test_loss},
        made_by=f"train {trained.record['dataset']['name']}, {recipe.epochs} ep",
        record={"training": trained.record, "curves": trained.series},
        definition_source=trained.definition_source,
        parent=_parent(registry, recipe.init, note),
    )


def _parent(registry: Registry, init: str, note: Callable[[str], None]) -> str | None:
    """The version that the run started from, if it did from one."""
    if not init or isinstance(parse_ref(init), FileRef):
        return None
    try:
        return registry.version(init).ref
    except RefError:  # removed while the run went on
        note(f"{init} was removed during the run; the new version has no parent")
        return None


def _model_name(definition: str) -> str:
    """``models/mnist_cnn.py:Net`` and ``ckpt.models.mnist_cnn:Net`` give ``mnist-cnn``."""
    place = definition.rpartition(":")[0].replace("\\", "/").removesuffix(".py")
    return place.rpartition("/")[2].rpartition(".")[2].replace("_", "-")
