"""`ckpt train`."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ckpt.cli.options import Session, remark_on_new_registry
from ckpt.cli.options import command as ckpt_command
from ckpt.cli.options.recipe import expect_none_typed, recipe_of, recipe_options
from ckpt.cli.options.watch import watch_options, watchers
from ckpt.errors import InterruptedTrainingError, RefError, UsageError
from ckpt.ops.register import register
from ckpt.refs import FileRef, expect_name, parse_ref
from ckpt.registry.registry import Added
from ckpt.show.look.words import printable, size
from ckpt.show.register import added_data, added_text
from ckpt.show.train import TrainingView, summary_table
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Trained, Watcher, Watchers

if TYPE_CHECKING:
    from torch import Tensor

    from ckpt.train.processes import Processes
    from ckpt.train.state import Keeper, State


@ckpt_command(
    examples="ckpt train --register\n"
    "ckpt train --register --recipe fast\n"
    "ckpt train --register --accumulate 4 --precision bf16 --epochs 3\n"
    "ckpt train --dataset digits --out digits.safetensors\n"
    "ckpt train --register --dataset photos/ --image-size 28 --model net.py:Net\n"
    "ckpt train --register --resume mnist-cnn.state.pt\n"
    "ckpt train --register --metrics run.jsonl --tensorboard runs/1\n"
    "torchrun --nproc-per-node 2 -m ckpt train --register",
    writes=True,
)
@click.option("--register", "registered", is_flag=True, help="Make the weights the next version.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on with a run from its state file, to the very same weights.",
)
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="How often the state is written, so that little is lost.",
)
@click.option("--name", metavar="MODEL", help="The model for --register; else the definition's.")
@click.option("-m", "--message", default="", help="What to say of the version.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file that stands there.")
@watch_options
@recipe_options
def command(
    session: Session,
    registered: bool,
    name: str | None,
    message: str,
    out: Path | None,
    force: bool,
    resume: Path | None,
    save_every: float,
    metrics: Path | None,
    tensorboard: Path | None,
    recipe_ref: str,
    **settings: Any,
) -> None:
    """Train a network by a recipe; the test images are read once, at the end.

    Without --register and --out the weights are written to a file named after the model.
    Ctrl-C, or SIGTERM, ends it at the next step, with a state file that --resume takes; a
    second one ends it at once. Under torchrun the processes share every effective batch.
    """
    from ckpt.train.processes import started_by_torchrun

    processes = started_by_torchrun()
    resumed = _resumed(resume)
    recipe = resumed.recipe if resumed is not None else recipe_of(recipe_ref, settings)
    initial = None
    if recipe.init and resumed is None:
        recipe, initial = _initial(session, recipe)
    model = expect_name(_model_name(recipe.model) if name is None else name)
    state = resume or Path(f"{model}.state.pt")
    keeper = _keeper(state, save_every, processes, new=resume is None)
    if name and not registered:
        raise UsageError("--name goes with --register")
    if recipe.keep == "both" and registered and out is None:
        raise UsageError("--keep both makes two files, of which one is registered: add -o FILE")
    others = [*watchers(metrics, tensorboard, resumed, replace=force)]
    with (
        _destination(out, model, kept=not registered) as path,
        _rescue(session, path, keeper, needed=registered and out is None),
    ):
        trained = _train(
            session, recipe, path, keeper, resumed, processes, others, initial, force=force
        )
        if trained is None:  # another process has the result
            return
        added = _registered(session, trained, recipe, model, message) if registered else None
    keeper.path.unlink(missing_ok=True)
    kept = None if registered and out is None else path
    session.show(lambda: _text(trained, kept, added), lambda: _data(trained, kept, added))


def _train(
    session: Session,
    recipe: Recipe,
    path: Path,
    keeper: "Keeper",
    resumed: "State | None",
    processes: "Processes",
    others: Sequence[Watcher],
    initial: "Mapping[str, Tensor] | None",
    *,
    force: bool,
) -> Trained | None:
    from ckpt.train.run import train

    watch = Watchers(TrainingView(session.terminal.remark, sys.stderr), *others)
    try:
        return train(
            recipe,
            path,
            watch=watch,
            replace=force,
            keeper=keeper,
            resumed=resumed,
            processes=processes,
            initial=initial,
        )
    except InterruptedTrainingError as error:
        if not processes.is_first:  # the first one says it
            sys.exit(error.exit_code)
        raise
    finally:
        watch.close()


def _initial(session: Session, recipe: Recipe) -> "tuple[Recipe, Mapping[str, Tensor]]":
    """The weights to begin with; the recipe names them so that they stay what they are."""
    from ckpt.ops.load import open as open_state_dict

    with open_state_dict(recipe.init, registry=session.registry) as state:
        tensors = {key: tensor.clone() for key, tensor in state.items()}
        return replace(recipe, init=state.name), tensors


def _resumed(path: Path | None) -> "State | None":
    """The state to go on from, which has its own recipe."""
    if path is None:
        return None
    expect_none_typed(path)
    from ckpt.train.state import read_state

    return read_state(path)


def _keeper(path: Path, minutes: float, processes: "Processes", *, new: bool) -> "Keeper":
    if new and path.exists():
        raise UsageError(
            f"{path}: the state of an interrupted run",
            hint=f"ckpt train --resume {path}  goes on with it; remove it to begin anew",
        )
    from ckpt.train.state import Keeper

    return Keeper(path, every=60 * minutes, processes=processes)


@contextmanager
def _destination(out: Path | None, model: str, *, kept: bool) -> Iterator[Path]:
    """Where the weights go: the file that was named, or one that only the registry sees."""
    if out is not None or kept:
        yield out or Path(f"{model}.pt")
    else:
        with TemporaryDirectory(prefix="ckpt-train-") as folder:
            yield Path(folder) / f"{model}.pt"


@contextmanager
def _rescue(session: Session, path: Path, keeper: "Keeper", *, needed: bool) -> Iterator[None]:
    """Keep the weights of a finished training whatever fails after it."""
    try:
        yield
    except BaseException:
        if needed and path.exists():
            saved = Path.cwd() / f"{path.stem}.{token_hex(4)}.pt"
            shutil.move(path, saved)
            resume = f"ckpt train --register --resume {keeper.path}"
            session.terminal.remark(f"the weights are in {saved}\n{resume}  tries the rest again")
        raise


def _registered(
    session: Session, trained: Trained, recipe: Recipe, model: str, message: str
) -> Added:
    added = register(
        str(trained.path),
        registry=session.registry,
        name=model,
        message=message,
        metrics={"accuracy": trained.test_accuracy, "loss": trained.test_loss},
        made_by=f"train {trained.record['dataset']['name']}, {recipe.epochs} ep",
        record={"training": trained.record, "curves": trained.series},
        definition_source=trained.definition_source,
        parent=_parent(session, recipe.init),
    )
    remark_on_new_registry(session, added.created_registry)
    return added


def _parent(session: Session, init: str) -> str | None:
    """The version whose weights the run began with, if it was one."""
    if not init or isinstance(parse_ref(init), FileRef):
        return None
    try:
        return session.registry.version(init).ref
    except RefError:  # removed while the run went on
        session.terminal.remark(f"{init} is not there any more; the new version names no parent")
        return None


def _model_name(definition: str) -> str:
    """``models/mnist_cnn.py:Net`` and ``ckpt.models.mnist_cnn:Net`` give ``mnist-cnn``."""
    place = definition.rpartition(":")[0].replace("\\", "/").removesuffix(".py")
    return place.rpartition("/")[2].rpartition(".")[2].replace("_", "-")


def _text(trained: Trained, path: Path | None, added: Added | None) -> str:
    lines = [summary_table(trained), ""]
    written = [each for each in (path, trained.last_path) if path and each]
    lines += [f"wrote {printable(str(each))}  {size(each.stat().st_size)}" for each in written]
    if added:
        lines.append(added_text(added))
    return "\n".join(lines)


def _data(trained: Trained, path: Path | None, added: Added | None) -> dict[str, Any]:
    return {
        "path": str(path) if path else None,
        "last_path": str(trained.last_path) if path and trained.last_path else None,
        "epoch": trained.epoch,
        "test_accuracy": trained.test_accuracy,
        "test_loss": trained.test_loss,
        "test_images": trained.test_count,
        "seconds": trained.seconds,
        "curves": trained.series,
        "record": trained.record,
        "added": added_data(added) if added else None,
    }
