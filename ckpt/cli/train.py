"""`ckpt train`."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ckpt.cli.options import Session, remark_on_new_registry
from ckpt.cli.options import command as ckpt_command
from ckpt.cli.watch_options import watch_options, watchers
from ckpt.errors import UsageError
from ckpt.ops.register import register
from ckpt.ops.registry import Added
from ckpt.registry.refs import expect_name
from ckpt.show.training import TrainingView, summary_table
from ckpt.show.versions import added_data, added_text
from ckpt.show.words import printable, size
from ckpt.train.recipe import DATASETS, OPTIMIZERS, PRECISIONS, SCHEDULES, Recipe
from ckpt.train.recipe_file import NAMES, read_recipe
from ckpt.train.watch import Trained, Watcher, Watchers

if TYPE_CHECKING:
    from ckpt.train.state import Keeper, State

_DEFAULT = Recipe()


@ckpt_command(
    examples="ckpt train --register\n"
    "ckpt train --register --recipe fast\n"
    "ckpt train --register --accumulate 4 --precision bf16 --epochs 3\n"
    "ckpt train --dataset digits --out digits.safetensors\n"
    "ckpt train --register --resume mnist-cnn.state.pt\n"
    "ckpt train --register --metrics run.jsonl --tensorboard runs/1"
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
@click.option(
    "--recipe",
    "recipe_ref",
    default="classic",
    show_default=True,
    metavar="NAME|FILE",
    help=f"Settings to begin with: {', '.join(NAMES)}, or a TOML file; options go before it.",
)
@click.option("--model", default=_DEFAULT.model, show_default=True, help="The definition.")
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    default=_DEFAULT.dataset,
    show_default=True,
    help="auto is MNIST where it can be had, else scikit-learn's digits.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="A folder in torchvision's layout; else CKPT_DATA, else the cache.",
)
@click.option("--epochs", type=int, default=_DEFAULT.epochs, show_default=True)
@click.option(
    "--batch-size",
    type=int,
    default=_DEFAULT.batch_size,
    show_default=True,
    help="Images of one micro-batch, what memory has to hold.",
)
@click.option(
    "--accumulate",
    type=int,
    default=_DEFAULT.accumulate,
    show_default=True,
    help="Micro-batches of one step; the product is the effective batch.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=_DEFAULT.precision,
    show_default=True,
    help="auto times a few steps of each and says what it chose.",
)
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default=_DEFAULT.optimizer,
    show_default=True,
)
@click.option("--lr", type=float, default=_DEFAULT.lr, show_default=True)
@click.option("--momentum", type=float, default=_DEFAULT.momentum, help="Of sgd.")
@click.option("--weight-decay", type=float, default=_DEFAULT.weight_decay, show_default=True)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default=_DEFAULT.schedule,
    show_default=True,
    help="Of the learning rate: step once an epoch, cosine and onecycle with every step.",
)
@click.option("--lr-decay", type=float, default=_DEFAULT.lr_decay, help="Of step, an epoch.")
@click.option("--clip", type=float, default=_DEFAULT.clip, help="Largest norm of the gradient.")
@click.option(
    "--ema",
    type=float,
    default=_DEFAULT.ema,
    metavar="DECAY",
    help="Keep an average of the weights, 0.99 or so, and write that.",
)
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True)
@click.option("--device", default=_DEFAULT.device, show_default=True)
@click.option(
    "--num-workers",
    type=int,
    default=_DEFAULT.num_workers,
    show_default=True,
    help="Processes that load batches; 0 keeps all images in memory.",
)
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
    second one ends it at once.
    """
    resumed = _resumed(resume)
    recipe = resumed.recipe if resumed is not None else _recipe(recipe_ref, settings)
    model = expect_name(name or _model_name(recipe.model))
    keeper = _keeper(resume or Path(f"{model}.state.pt"), save_every, new=resume is None)
    if name and not registered:
        raise UsageError("--name goes with --register")
    others = [*watchers(metrics, tensorboard, resumed, replace=force)]
    with (
        _destination(out, model, kept=not registered) as path,
        _rescue(session, path, needed=registered and out is None),
    ):
        trained = _train(session, recipe, path, keeper, resumed, others, force=force)
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
    others: Sequence[Watcher],
    *,
    force: bool,
) -> Trained:
    from ckpt.train.run import train

    watch = Watchers(TrainingView(session.terminal.remark, sys.stderr), *others)
    try:
        return train(recipe, path, watch=watch, replace=force, keeper=keeper, resumed=resumed)
    finally:
        watch.close()


def _recipe(ref: str, settings: dict[str, Any]) -> Recipe:
    """The recipe, with what was typed besides."""
    typed = {name: value for name, value in settings.items() if _is_typed(name)}
    return Recipe(**{**read_recipe(ref), **typed})


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def _resumed(path: Path | None) -> "State | None":
    """The state to go on from, which has its own recipe."""
    if path is None:
        return None
    for name in ("recipe_ref", *Recipe.__dataclass_fields__):
        if _is_typed(name):
            option = "recipe" if name == "recipe_ref" else name.replace("_", "-")
            raise UsageError(f"--resume takes the recipe of {path}; --{option} cannot go with it")
    from ckpt.train.state import read_state

    return read_state(path)


def _keeper(path: Path, minutes: float, *, new: bool) -> "Keeper":
    if new and path.exists():
        raise UsageError(
            f"{path}: the state of an interrupted run",
            hint=f"ckpt train --resume {path}  goes on with it; remove it to begin anew",
        )
    from ckpt.train.state import Keeper

    return Keeper(path, every=60 * minutes)


@contextmanager
def _destination(out: Path | None, model: str, *, kept: bool) -> Iterator[Path]:
    """Where the weights go: the file that was named, or one that only the registry sees."""
    if out is not None or kept:
        yield out or Path(f"{model}.pt")
    else:
        with TemporaryDirectory(prefix="ckpt-train-") as folder:
            yield Path(folder) / f"{model}.pt"


@contextmanager
def _rescue(session: Session, path: Path, *, needed: bool) -> Iterator[None]:
    """Keep the weights of a finished training whatever fails after it."""
    try:
        yield
    except BaseException:
        if needed and path.exists():
            saved = Path.cwd() / f"{path.stem}.{token_hex(4)}.pt"
            shutil.move(path, saved)
            session.terminal.remark(f"the weights are in {saved}")
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
    )
    remark_on_new_registry(session, added.created_registry)
    return added


def _model_name(definition: str) -> str:
    """``models/mnist_cnn.py:Net`` and ``ckpt.models.mnist_cnn:Net`` give ``mnist-cnn``."""
    place = definition.rpartition(":")[0].replace("\\", "/").removesuffix(".py")
    return place.rpartition("/")[2].rpartition(".")[2].replace("_", "-")


def _text(trained: Trained, path: Path | None, added: Added | None) -> str:
    lines = [summary_table(trained), ""]
    if path:
        lines.append(f"wrote {printable(str(path))}  {size(path.stat().st_size)}")
    if added:
        lines.append(added_text(added))
    return "\n".join(lines)


def _data(trained: Trained, path: Path | None, added: Added | None) -> dict[str, Any]:
    return {
        "path": str(path) if path else None,
        "test_accuracy": trained.test_accuracy,
        "test_loss": trained.test_loss,
        "test_images": trained.test_count,
        "seconds": trained.seconds,
        "curves": trained.series,
        "record": trained.record,
        "added": added_data(added) if added else None,
    }
