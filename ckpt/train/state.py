"""The state of a run at a window border: written whole, and taken up again exactly.

Law: a run that was interrupted after any window and resumed ends with the same weights, bit by
bit, as one that was not (on a CPU with the same number of threads, or on CUDA with the
deterministic algorithms that `run` asks for). Random numbers are part of it: sample order is a
function of seed and epoch, dropout continues where its generator stood.
"""

import io
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import torch

from ckpt.errors import CkptError, FormatError, InterruptedTrainingError, RefError
from ckpt.io.files import write_whole
from ckpt.train.holdout import Best
from ckpt.train.loop import Progress, Trainer
from ckpt.train.precision import Precision
from ckpt.train.processes import ALONE, Processes
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Epoch

_FORM = "ckpt training state 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A run between two of its windows.

    Attributes:
        recipe: What is trained, `auto` values as they were asked for.
        precision: As it was chosen.
        dataset: Digest of the images.
        definition: Source text of the definition.
        epoch: From 1, the one that is under way.
        seconds: That this epoch has taken.
        progress: How far it is.
        curves: The epochs that are over.
        generators: torch's random numbers in each process: of the CPU and of CUDA devices.
        parts: What has a state_dict: model, optimizer, schedule, scaler.
        best: The best epoch so far, where there is a hold-out.
        micro_batch: Their largest size, which may have been halved.
        resumes: How often the run was taken up.
    """

    recipe: Recipe
    precision: Precision
    dataset: str
    definition: str
    epoch: int
    seconds: float
    progress: Progress
    curves: tuple[Epoch, ...]
    generators: Sequence[Mapping[str, Any]]
    parts: Mapping[str, Any]
    best: Best | None
    micro_batch: int
    resumes: int

    def restore(self, trainer: Trainer) -> Progress:
        """Put the trainer, and torch's random numbers, where they were.

        Returns:
            How far this process is; the first one has what all have counted.
        """
        for name, part in _parts(trainer).items():
            part.load_state_dict(self.parts[name])
        generators = self.generators[trainer.processes.rank]
        torch.set_rng_state(generators["cpu"])
        if generators["cuda"]:
            torch.cuda.set_rng_state_all(generators["cuda"])
        counted = self.progress.tally
        tally = counted if trainer.processes.is_first else torch.zeros_like(counted)
        return replace(self.progress, tally=tally)


def _parts(trainer: Trainer) -> dict[str, Any]:
    parts = {
        "model": trainer.model,
        "optimizer": trainer.optimizer,
        "schedule": trainer.schedule.scheduler,
        "scaler": trainer.scaler,
    }
    return parts if trainer.average is None else {**parts, "average": trainer.average}


def states_of(trainer: Trainer) -> dict[str, Any]:
    """What `State.parts` holds."""
    return {name: part.state_dict() for name, part in _parts(trainer).items()}


def generators() -> dict[str, Any]:
    """What `State.generators` holds."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def write_state(path: Path, state: State) -> None:
    """Write a state file, replacing the one before it; whole or not at all, and on disk."""
    recipe = asdict(state.recipe)
    recipe["data_dir"] = None if state.recipe.data_dir is None else str(state.recipe.data_dir)
    document = {
        "form": _FORM,
        "recipe": recipe,
        "precision": asdict(state.precision),
        "dataset": state.dataset,
        "definition": state.definition,
        "epoch": state.epoch,
        "seconds": state.seconds,
        "progress": {**asdict(state.progress), "tally": state.progress.tally},
        "curves": [asdict(epoch) for epoch in state.curves],
        "generators": [dict(each) for each in state.generators],
        "parts": dict(state.parts),
        "best": state.best and {"epoch": state.best.epoch, "weights": state.best.weights},
        "micro_batch": state.micro_batch,
        "resumes": state.resumes,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with write_whole(path, replace=True) as out:
        out.write(buffer.getbuffer())


def read_state(path: Path) -> State:
    """Read a state file.

    Raises:
        RefError: There is no such file.
        FormatError: It is none.
    """
    if not path.is_file():
        raise RefError(f"{path}: no such file")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["form"] != _FORM:
            raise ValueError(f"its form is {document['form']!r:.40}")
        return _state(document)
    except CkptError:
        raise
    except Exception as error:  # foreign bytes, in a parser of torch's
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path}: no state of a training run: {reason}", hint="ckpt train  writes one"
        ) from error


def _state(document: Mapping[str, Any]) -> State:
    recipe = dict(document["recipe"])
    recipe["data_dir"] = None if recipe["data_dir"] is None else Path(recipe["data_dir"])
    return State(
        recipe=Recipe(**recipe),
        precision=Precision(**document["precision"]),
        dataset=document["dataset"],
        definition=document["definition"],
        epoch=document["epoch"],
        seconds=document["seconds"],
        progress=Progress(**document["progress"]),
        curves=tuple(Epoch(**epoch) for epoch in document["curves"]),
        generators=document["generators"],
        parts=document["parts"],
        best=document["best"] and Best(**document["best"]),
        micro_batch=document["micro_batch"],
        resumes=document["resumes"],
    )


class Keeper:
    """Says at each window border whether the state is to be written, and whether to stop.

    The processes of a run agree on both: the first one writes, and all stop after that.

    Args:
        path: The state file.
        every: Seconds between two of them.
        processes: Of the run.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: float,
        processes: Processes = ALONE,
    ) -> None:
        self.path = path
        self._every, self._written = every, monotonic()
        self._processes = processes
        self._asked, self._asked_at = 0, 0.0  # the signal that this process has
        self._stop = 0  # the one that all of them know of

    @property
    def due(self) -> bool:
        """Whether the state is to be written at this border; asked by all processes there."""
        is_late = monotonic() - self._written >= self._every
        self._stop, due = self._processes.largest([self._asked, is_late])
        return bool(self._stop or due)

    def write(self, state: State) -> None:
        """Write the state, and stop if a signal asked for it.

        Raises:
            InterruptedTrainingError: One did.
        """
        if self._processes.is_first:
            write_state(self.path, state)
        self._processes.wait()  # one that ends has torchrun end the others
        self._written = monotonic()
        if self._stop:
            command = f"{again(self._processes.count)} train --resume {self.path}"
            raise InterruptedTrainingError(
                f"interrupted in epoch {state.epoch}, after {state.progress.samples:,} images",
                hint=f"{command}  goes on from there",
                signal=self._stop,
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop at the next border; the second one ends."""
        if threading.current_thread() is not threading.main_thread():  # they go to that one
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _frame: FrameType | None) -> None:
            # A terminal's Ctrl-C reaches torchrun too, which sends SIGTERM after it.
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


def again(processes: int) -> str:
    """The command that goes on with a run of so many processes."""
    return "ckpt" if processes == 1 else f"torchrun --nproc-per-node {processes} -m ckpt"
