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
from ckpt.train.watch.events import Trained, Unwatched, Watcher

if TYPE_CHECKING:
    from torch import Tensor

    from ckpt.train.processes import Processes
    from ckpt.train.state import Keeper, State

SAVE_MINUTES = 5.0


@dataclass(frozen=True, slots=True)
class Training:
    """What a training gave.

    Attributes:
        trained: The run.
        path: The file that holds the weights; None if the registry alone does.
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
    watch: Watcher | None = None,
    note: Callable[[str], None] | None = None,
) -> Training | None:
    """Train by a recipe; under torchrun the processes share every effective batch.

    Args:
        recipe: What to do.
        out: The file to write; by default one named after the model, and none if the result is
            registered.
        registry: Where versions are looked up and added.
        register_result: Make the weights the next version of a model.
        name: That model; None takes the definition's name.
        message: What to say of the version.
        replace_out: Whether a file that stands there is replaced.
        state_file: Where the state is written now and then, and when a signal ends the run; by
            default ``MODEL.state.pt``. It is removed when the run is done.
        save_minutes: How often.
        resumed: The state to go on from, as `ckpt.train.state.read_state` reads it from
            `state_file`; `recipe` is its own then.
        watch: Told how it goes, and closed when the run is over.
        note: Told, in a line or two, where rescued weights are, and what is not recorded.

    Returns:
        None in all processes of torchrun but the first.

    Raises:
        UsageError: The file stands already, or a state that `resumed` does not go on from.
        InterruptedTrainingError: A signal ended it; the state is in `state_file`.
    """
    from ckpt.train.processes import started_by_torchrun

    registry = registry or Registry()
    watch, note = watch or Unwatched(), note or _ignore
    out = None if out is None else Path(out)
    processes = started_by_torchrun()
    initial = None
    if recipe.init and resumed is None:
        recipe, initial = _initial(registry, recipe)
    model = expect_name(_model_name(recipe.model) if name is None else name)
    state_file = state_file or Path(f"{model}.state.pt")
    keeper = _keeper(state_file, save_minutes, processes, new=resumed is None)
    if name and not register_result:
        raise UsageError("--name goes with --register")
    if recipe.keep == "both" and register_result and out is None:
        raise UsageError("--keep both makes two files, of which one is registered: add -o FILE")
    hidden = register_result and out is None
    with (
        _destination(out, model, hidden=hidden) as path,
        _rescue(path, keeper, note, hidden=hidden),
    ):
        trained = _trained(
            recipe, path, watch, keeper, resumed, processes, initial, replace_out=replace_out
        )
        if trained is None:
            return None
        added = None
        if register_result:
            added = _registered(registry, trained, recipe, model, message, note)
    keeper.path.unlink(missing_ok=True)
    return Training(trained, None if hidden else path, added)


def _ignore(_text: str) -> None: ...


def _trained(
    recipe: Recipe,
    path: Path,
    watch: Watcher,
    keeper: "Keeper",
    resumed: "State | None",
    processes: "Processes",
    initial: "Mapping[str, Tensor] | None",
    *,
    replace_out: bool,
) -> Trained | None:
    from ckpt.train import run

    try:
        return run.train(
            recipe,
            path,
            watch=watch,
            replace=replace_out,
            keeper=keeper,
            resumed=resumed,
            processes=processes,
            initial=initial,
        )
    finally:
        watch.close()


def _initial(registry: Registry, recipe: Recipe) -> "tuple[Recipe, Mapping[str, Tensor]]":
    """The weights to begin with; the recipe names them so that they stay what they are."""
    from ckpt.ops.load import open as open_state_dict

    with open_state_dict(recipe.init, registry=registry) as state:
        tensors = {key: tensor.clone() for key, tensor in state.items()}
        return replace(recipe, init=state.name), tensors


def _keeper(path: Path, minutes: float, processes: "Processes", *, new: bool) -> "Keeper":
    if new and path.exists():
        raise UsageError(
            f"{path}: the state of an interrupted run",
            hint=f"ckpt train --resume {path}  goes on with it; remove it to begin anew",
        )
    from ckpt.train.state import Keeper

    return Keeper(path, every=60 * minutes, processes=processes)


@contextmanager
def _destination(out: Path | None, model: str, *, hidden: bool) -> Iterator[Path]:
    """Where the weights go: the file that was named, or one that only the registry sees."""
    if hidden:
        with TemporaryDirectory(prefix="ckpt-train-") as folder:
            yield Path(folder) / f"{model}.pt"
    else:
        yield out or Path(f"{model}.pt")


@contextmanager
def _rescue(
    path: Path, keeper: "Keeper", note: Callable[[str], None], *, hidden: bool
) -> Iterator[None]:
    """Keep the weights of a finished training whatever fails after it."""
    try:
        yield
    except BaseException:
        if hidden and path.exists():
            saved = Path.cwd() / f"{path.stem}.{token_hex(4)}.pt"
            shutil.move(path, saved)
            resume = f"ckpt train --register --resume {keeper.path}"
            note(f"the weights are in {saved}\n{resume}  tries the rest again")
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
    """The version whose weights the run began with, if it was one."""
    if not init or isinstance(parse_ref(init), FileRef):
        return None
    try:
        return registry.version(init).ref
    except RefError:  # removed while the run went on
        note(f"{init} is not there any more; the new version names no parent")
        return None


def _model_name(definition: str) -> str:
    """``models/mnist_cnn.py:Net`` and ``ckpt.models.mnist_cnn:Net`` give ``mnist-cnn``."""
    place = definition.rpartition(":")[0].replace("\\", "/").removesuffix(".py")
    return place.rpartition("/")[2].rpartition(".")[2].replace("_", "-")
