"""The state of a run after one of its windows: written whole, and restored exactly.

Law: a run that is interrupted after any window and resumed ends with the same weights, bit by
bit, as one that is not (on a CPU with the same number of threads, or on CUDA with the
deterministic algorithms that `run` asks for). Random numbers are part of the state: the sample
order is a function of seed and epoch, and the generators of dropout and of models are saved.
"""

import io
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import torch

from ckpt.errors import CkptError, FormatError, InterruptedTrainingError, RefError
from ckpt.io.files import write_whole
from ckpt.train.holdout import Best
from ckpt.train.loop import EpochProgress, Trainer
from ckpt.train.processes import ALONE, Processes
from ckpt.train.random_numbers import restore
from ckpt.train.recipes.outputs import Outputs
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.sharding import load_whole, whole
from ckpt.train.trials import Precision
from ckpt.train.watch.events import Epoch

_FORM = "ckpt training state 5"
_MEET = 1.0  # seconds between two times that processes agree on signals and states


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A run between two of its windows.

    Attributes:
        recipe: Its settings, with ``auto`` values unresolved.
        dataset: Digest of the images.
        definition: Source text of the definition.
        epoch: The current one, from 1.
        seconds: Duration of this epoch so far.
        progress: How much of this epoch is done.
        generators: The random numbers of each process; see `random_numbers`.
        parts: State_dicts of model, optimizer, schedule, scaler and average.
        best: The best epoch so far, if there is a hold-out.
        micro_batch: Their largest size, which may have been halved.
        outputs: What the run was asked for; a resumed one goes on with it.
    """

    recipe: Recipe
    precision: Precision
    dataset: str
    definition: str
    epoch: int
    seconds: float
    progress: EpochProgress
    curves: tuple[Epoch, ...]
    generators: Sequence[Mapping[str, Any]]
    parts: Mapping[str, Any]
    best: Best | None
    micro_batch: int
    resumes: int
    outputs: Outputs

    def restore(self, trainer: Trainer) -> EpochProgress:
        """Restore the trainer and the random numbers.

        The learning rate follows the schedule of `trainer`, which may have more epochs.

        Returns:
            The progress of this process; rank 0 has the tally of all of them.
        """
        rates = _rates_after(trainer, self.parts["schedule"]["last_epoch"])
        for name, part in _parts(trainer).items():
            if name != "schedule":
                load_whole(part, self.parts[name])
        for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        restore(self.generators[trainer.processes.rank], trainer.device)
        counted = self.progress.tally
        tally = counted if trainer.processes.is_first else torch.zeros_like(counted)
        lr = self.progress.lr if self.progress.windows else rates[0]
        return replace(self.progress, tally=tally, lr=lr)


def _parts(trainer: Trainer) -> dict[str, Any]:
    parts = {
        "model": trainer.model,
        "optimizer": trainer.optimizer,
        "schedule": trainer.schedule,
        "scaler": trainer.scaler,
    }
    return parts if trainer.average is None else {**parts, "average": trainer.average}


def _rates_after(trainer: Trainer, steps: int) -> list[float]:
    """Learning rates after so many steps of the new schedule of `trainer`, which takes them."""
    with warnings.catch_warnings():  # the steps of the optimizer are another process's
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        for _ in range(steps):
            trainer.schedule.step()
    return [float(group["lr"]) for group in trainer.optimizer.param_groups]


def states_of(trainer: Trainer) -> dict[str, Any]:
    """The value of `State.parts`."""
    return {name: whole(part.state_dict()) for name, part in _parts(trainer).items()}


def write_state(path: Path, state: State) -> None:
    """Write a state file, replacing the one before it; whole or not at all, and on disk."""
    document = {
        **{field.name: getattr(state, field.name) for field in fields(state)},
        "form": _FORM,
        "recipe": {**asdict(state.recipe), "data_dir": _text(state.recipe.data_dir)},
        "precision": asdict(state.precision),
        "progress": {**asdict(state.progress), "tally": state.progress.tally},
        "curves": [asdict(epoch) for epoch in state.curves],
        "generators": [dict(of_process) for of_process in state.generators],
        "best": state.best and {"epoch": state.best.epoch, "weights": state.best.weights},
        "outputs": {**asdict(state.outputs), "out": _text(state.outputs.out)},
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with write_whole(path, replace=True) as out:
        out.write(buffer.getbuffer())


def read_state(path: Path) -> State:
    """Read a state file.

    Raises:
        RefError: No such file.
        FormatError: Not a state file.
    """
    if not path.is_file():
        raise RefError(f"{path}: no such file")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        form = document.pop("form")
        if form != _FORM:
            raise ValueError(f"its form is {form!r:.40}, expected {_FORM!r}")
        recipe, best = document["recipe"], document["best"]
        outputs = document["outputs"]
        parsed = {
            "recipe": Recipe(**{**recipe, "data_dir": _path(recipe["data_dir"])}),
            "outputs": Outputs(**{**outputs, "out": _path(outputs["out"])}),
            "precision": Precision(**document["precision"]),
            "progress": EpochProgress(**document["progress"]),
            "curves": tuple(Epoch(**epoch) for epoch in document["curves"]),
            "best": best and Best(**best),
        }
        return State(**{**document, **parsed})
    except CkptError:
        raise
    except Exception as error:  # foreign bytes, in a parser of torch's
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise FormatError(
            f"{path}: not the state of a training run{reason}", hint="to write one:  ckpt train"
        ) from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


class Keeper:
    """Decides after each window whether to write the state, and whether to stop.

    The processes of a run agree on both: rank 0 writes, and all stop after that.

    Args:
        path: The state file.
        every: Seconds between two of its versions.
        processes: Of the run.
        outputs: Is part of the state.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: float,
        processes: Processes = ALONE,
        outputs: Outputs | None = None,
    ) -> None:
        self.path, self.outputs = path, outputs or Outputs()
        self._every, self._written = every, monotonic()
        self._processes = processes
        self._asked, self._asked_at = 0, 0.0  # the signal that this process received
        self._stop = 0  # the one that all processes know of
        self._met, self._windows, self._next = monotonic(), 0, 1

    @property
    def due(self) -> bool:
        """Whether to write the state after this window; all processes have to ask.

        They meet about once a second, not after every window: when they meet again is part of
        what they agree on, in windows of the slowest one.
        """
        self._windows += 1
        return self._windows >= self._next and self.agree()

    def agree(self) -> bool:
        """What `due` says when the processes meet: now."""
        now = monotonic()
        is_late = now - self._written >= self._every
        microseconds = max(1, int((now - self._met) / max(1, self._windows) * 1e6))  # of a window
        self._stop, due, slowest = self._processes.largest([self._asked, is_late, microseconds])
        apart = min(_MEET, self._every) if self._processes.count > 1 else 0
        self._met, self._windows, self._next = now, 0, max(1, int(apart * 1e6 / slowest))
        return bool(self._stop or due)

    def write(self, state: State) -> None:
        """Write the state, and stop if a signal asked for that.

        Raises:
            InterruptedTrainingError: A signal did.
        """
        if self._processes.is_first:
            write_state(self.path, state)
        self._processes.wait()  # torchrun ends the others when one ends
        self._written = monotonic()
        if self._stop:
            command = resume_command(self._processes.count, str(self.path))
            raise InterruptedTrainingError(
                f"interrupted in epoch {state.epoch}, after {state.progress.samples:,} images",
                hint=f"{command}  continues from there",
                signal=self._stop,
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Stop after the current window on SIGINT or SIGTERM, and at once on a second one."""
        if threading.current_thread() is not threading.main_thread():  # only it gets signals
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _frame: FrameType | None) -> None:
            # A terminal's Ctrl-C also reaches torchrun, which then sends SIGTERM.
            if self._asked and self._processes.count > 1 and monotonic() < self._asked_at + 1:
                return
            if self._asked:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self._asked, self._asked_at = number, monotonic()

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def resume_command(processes: int, state_file: str) -> str:
    """The command that resumes a run of so many processes."""
    program = "ckpt" if processes == 1 else f"torchrun --nproc-per-node {processes} -m ckpt"
    return f"{program} train --resume {state_file}"
