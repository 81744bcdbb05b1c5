"""`ckpt train`."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckpt.cli.options import PATH, Session, arg_option, ckpt_command
from ckpt.cli.options.picture import picture_form
from ckpt.cli.options.recipe import (
    doctors_recipe,
    recipe_of,
    recipe_options,
    resumed_settings,
)
from ckpt.errors import InterruptedTrainingError
from ckpt.io.files import write_whole
from ckpt.ops.train import SAVE_MINUTES, train
from ckpt.show.look.words import printable
from ckpt.show.train import TrainingView, training_data, training_text
from ckpt.show.train.doctor import diagnosis_data, diagnosis_picture, diagnosis_text
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.tips.doctor import doctor as examine
from ckpt.train.watch.events import Callback, StepDone, call_each
from ckpt.train.watch.metrics_file import MetricsFile

if TYPE_CHECKING:
    from ckpt.train.state import State


@ckpt_command(
    examples="ckpt train --register\n"
    "ckpt train --register --recipe fast\n"
    "ckpt train --register --accumulate 4 --precision bf16 --epochs 3\n"
    "ckpt train --dataset digits --out digits.safetensors\n"
    "ckpt train --register --dataset photos/ --image-size 28 --model net.py:Net\n"
    "ckpt train --register --resume mnist-cnn.state.pt\n"
    "ckpt train --register --metrics run.jsonl --tensorboard runs/1\n"
    "ckpt train --doctor net.py:Net --dataset photos/ -o doctor.svg\n"
    "torchrun --nproc-per-node 2 -m ckpt train --register",
    writes=True,
)
@click.option("--register", "registered", is_flag=True, help="Add the weights as the next version.")
@click.option(
    "--resume",
    type=PATH,
    metavar="FILE",
    help="Resume a run from its state file, to the same weights, bit by bit. It keeps all options "
    "but those typed; of its recipe, --epochs, --device and --data-dir can change.",
)
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help=f"Interval between two state files (default: {SAVE_MINUTES:g}).",
)
@click.option(
    "--keep-state",
    is_flag=True,
    help="Keep the state file of the finished run, so that --resume --epochs N goes on with it.",
)
@click.option(
    "--name", metavar="MODEL", help="Name of the model for --register (default: the definition's)."
)
@click.option("-m", "--message", help="Describe the version.")
@click.option("-o", "--out", type=PATH, help="Write the weights to this file.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option(
    "--metrics",
    type=PATH,
    metavar="FILE.jsonl",
    help="Write metrics as JSON lines: at the start, after every epoch and at the end.",
)
@click.option(
    "--tensorboard",
    type=PATH,
    metavar="FOLDER",
    help="Write TensorBoard event files; needs the package tensorboard.",
)
@click.option(
    "--doctor",
    metavar="DEFINITION",
    help="Do not train: measure which of the five tips (workers, largest batch, 16 bits, "
    "accumulation, kept graphs) help this model on --dataset; -o draws a .png or .svg.",
)
@arg_option
@recipe_options
def command(
    session: Session,
    registered: bool,
    name: str | None,
    message: str | None,
    out: Path | None,
    force: bool,
    resume: Path | None,
    save_every: float | None,
    keep_state: bool,
    metrics: Path | None,
    tensorboard: Path | None,
    doctor: str | None,
    recipe_ref: str,
    arguments: dict[str, object],
    **settings: Any,
) -> None:
    """Train an image classifier on a dataset (MNIST by default).

    The test images are read once, at the end. Without --register and --out the weights are written
    to a file named after the model. Ctrl-C or SIGTERM stops the run after the current step and
    leaves a state file for --resume; a second one stops it at once. Under torchrun (DDP, or FSDP2
    with --parallel fsdp) the processes share every effective batch.
    """
    if doctor is not None:
        examined = doctors_recipe(doctor, recipe_ref, settings, arguments)
        _examine(session, examined, out, replace=force)
        return
    recipe, resumed, changed = _asked(resume, recipe_ref, settings, arguments)
    files = _file_callbacks(metrics, tensorboard, resumed, replace=force)
    with _reported_once():
        done = train(
            recipe,
            out,
            registry=session.registry,
            register_result=registered or None,
            name=name,
            message=message,
            replace_out=force,
            state_file=resume,
            save_minutes=save_every,
            keep_state=keep_state or None,
            resume=resumed,
            callback=call_each(TrainingView(session.terminal.remark, sys.stderr), *files),
            note=session.terminal.remark,
            **changed,
        )
    if done is not None:  # rank 0 has the result
        session.remark_on_added(done.added)
        session.show(done, partial(training_text, width=session.terminal.width), training_data)


def _asked(
    resume: Path | None, recipe_ref: str, settings: dict[str, Any], arguments: dict[str, object]
) -> tuple[Recipe | None, "State | None", Mapping[str, Any]]:
    """The recipe of a new run; or the state to continue from, and what changes of its recipe."""
    if resume is None:
        return recipe_of(recipe_ref, settings, arguments), None, {}
    changed = resumed_settings(resume, settings)
    from ckpt.train.state import read_state

    return None, read_state(resume), changed


@contextmanager
def _reported_once() -> Iterator[None]:
    """Rank 0 alone reports an interruption; the others end with its exit code."""
    try:
        yield
    except InterruptedTrainingError as error:
        from ckpt.train.processes import started_by_torchrun

        if not started_by_torchrun().is_first:
            sys.exit(error.exit_code)
        raise


def _examine(session: Session, recipe: Recipe, out: Path | None, *, replace: bool) -> None:
    """Measure, and draw it if `out` is given."""
    form = None if out is None else picture_form(out, replace=replace)
    found = examine(recipe, callback=TrainingView(session.terminal.remark, sys.stderr))
    text = partial(diagnosis_text, width=session.terminal.width)
    if out is None or form is None:
        session.show(found, text, diagnosis_data)
        return
    with write_whole(out, replace=replace) as file:
        file.write(diagnosis_picture(found, form))
    session.show(
        found,
        lambda found: f"{text(found)}\n\nwrote {printable(str(out))}",
        lambda found: {**diagnosis_data(found), "path": str(out)},
    )


def _file_callbacks(
    metrics: Path | None, tensorboard: Path | None, resumed: "State | None", *, replace: bool
) -> Iterator[Callback]:
    """The callbacks for the files that were named; mistakes are caught before the run."""
    at = None if resumed is None else StepDone(resumed.epoch, resumed.progress.samples)
    if metrics is not None:
        yield MetricsFile(metrics, replace=replace, resumed_at=at)
    if tensorboard is not None:
        from ckpt.train.watch.tensorboard import TensorBoard

        yield TensorBoard(tensorboard, replace=replace, resumed_at=at)
