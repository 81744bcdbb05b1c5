"""`ckpt train`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckpt.cli.options import PATH, Session, arg_option, ckpt_command
from ckpt.cli.options.recipe import recipe_of, recipe_options, resumed_settings
from ckpt.errors import InterruptedTrainingError
from ckpt.ops.train import SAVE_MINUTES, train
from ckpt.show.train import TrainingView, training_data, training_text
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
    recipe_ref: str,
    arguments: dict[str, object],
    **settings: Any,
) -> None:
    """Train an image classifier on a dataset (MNIST by default).

    The test images are read once, at the end. Without --register and --out the weights are written
    to a file named after the model. Ctrl-C or SIGTERM stops the run after the current step and
    leaves a state file for --resume; a second one stops it at once. Under torchrun (DDP) the
    processes share every effective batch.
    """
    resumed, recipe = None, None
    if resume is None:
        recipe, settings = recipe_of(recipe_ref, settings, arguments), {}
    else:
        resumed, settings = _resumed(resume), resumed_settings(resume, settings)
    files = _file_callbacks(metrics, tensorboard, resumed, replace=force)
    try:
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
            **settings,
        )
    except InterruptedTrainingError as error:
        from ckpt.train.processes import started_by_torchrun

        if not started_by_torchrun().is_first:  # rank 0 alone reports the interruption
            sys.exit(error.exit_code)
        raise
    if done is None:  # rank 0 has the result
        return
    session.remark_on_added(done.added)
    session.show(done, training_text, training_data)


def _resumed(path: Path) -> "State":
    """The state to continue from, which has its own recipe."""
    from ckpt.train.state import read_state

    return read_state(path)


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
