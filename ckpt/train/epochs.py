"""The epochs of a run, one after the other, from the beginning or from a state."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import nn

from ckpt.definitions import Definition
from ckpt.train.data.dataset import Dataset
from ckpt.train.data.windows import epoch_seed
from ckpt.train.feed import Feed
from ckpt.train.holdout import Best, best_epoch, is_over
from ckpt.train.loop import Progress, Totals, evaluate
from ckpt.train.memory import MicroBatchSize
from ckpt.train.precision import Precision, build_trainer
from ckpt.train.processes import Processes
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.state import Keeper, State, generators, states_of
from ckpt.train.watch.events import Epoch, Watcher
from ckpt.train.weights import portable


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is settled before the first step."""

    recipe: Recipe
    definition: Definition
    dataset: Dataset
    device: torch.device
    processes: Processes
    size: MicroBatchSize
    feed: Feed
    model: nn.Module
    precision: Precision


class Epochs:
    """The training of a run.

    Args:
        run: What is trained.
        watch: Told how it goes.
        keeper: Writes the state at window borders, and where a signal ends the run.
        resumed: The state to go on from.
    """

    def __init__(
        self, run: Run, watch: Watcher, keeper: Keeper | None, resumed: State | None
    ) -> None:
        self._run, self._watch, self._keeper = run, watch, keeper
        self._trainer = build_trainer(
            run.model,
            run.precision.name,
            run.recipe,
            windows=run.feed.window_count,
            processes=run.processes,
            size=run.size,
        )
        self._resumed = resumed
        self._resumes = 0 if resumed is None else resumed.resumes + 1
        self._curves = [] if resumed is None else [*resumed.curves]
        self._best = None if resumed is None else resumed.best
        self._began = 0.0  # of the epoch, as perf_counter has it

    @property
    def best(self) -> Best:
        """The best epoch on the hold-out; without one the last."""
        return self._best or self.last

    @property
    def last(self) -> Best:
        """The last epoch."""
        return Best(len(self._curves), portable(self._result))

    @property
    def _result(self) -> nn.Module:
        """The model to be kept: the average of its weights, where the recipe has one."""
        average = self._trainer.average
        return self._run.model if average is None else average.module

    def train(self) -> tuple[Epoch, ...]:
        """Train the epochs that are left, until the hold-out says that they bring nothing.

        Raises:
            InterruptedTrainingError: A signal ended it; the keeper has the state.
        """
        progress = self._resumed.restore(self._trainer) if self._resumed is not None else None
        with self._keeper.listening() if self._keeper is not None else nullcontext():
            # One word for all processes: the GPUs of two may round a loss in two ways.
            while not self._run.processes.of_first(is_over(self._curves, self._run.recipe)):
                self._epoch(len(self._curves) + 1, progress)
                progress = None
            self._keep_end()
        return tuple(self._curves)

    def _keep_end(self) -> None:
        """Write the state once more: what is left may fail too, and the epochs took long."""
        if self._keeper is not None:
            self._began = perf_counter()
            self._keeper.write(self._state(len(self._curves) + 1, self._trainer.begun()))

    def _epoch(self, epoch: int, progress: Progress | None) -> None:
        self._begin(epoch, progress)
        lr = float(self._trainer.optimizer.param_groups[0]["lr"])
        windows = self._run.feed.windows(epoch, progress.windows if progress else 0)
        totals = self._trainer.train_epoch(windows, lambda at: self._border(epoch, at), progress)
        seconds = perf_counter() - self._began
        held_out = self._score_holdout()
        result = Epoch(
            epoch=epoch,
            loss=totals.loss_sum / totals.samples,
            accuracy=totals.correct / totals.samples,
            lr=lr,
            seconds=seconds,
            images_per_second=totals.samples / seconds,
            skipped_steps=totals.windows - totals.steps,
            holdout_loss=held_out.loss_sum / held_out.samples if held_out else None,
            holdout_accuracy=held_out.correct / held_out.samples if held_out else None,
        )
        self._curves.append(result)
        if held_out and best_epoch(self._curves) == epoch:
            self._best = self.last
        self._watch.epoch(result)

    def _score_holdout(self) -> Totals | None:
        feed = self._run.feed
        return evaluate(self._result, feed.holdout_batches()) if feed.holdout_count else None

    def _begin(self, epoch: int, progress: Progress | None) -> None:
        """Start the epoch's clock and its stream of dropout masks; no other epoch draws from it."""
        already = self._resumed.seconds if self._resumed is not None and progress else 0.0
        self._began = perf_counter() - already
        if progress is None or not progress.windows:
            rank = self._run.processes.rank
            stream = f"dropout {rank}" if rank else "dropout"
            torch.manual_seed(epoch_seed(stream, self._run.recipe.seed, epoch))

    def _border(self, epoch: int, progress: Progress) -> None:
        self._watch.step(epoch, progress.samples)
        if self._keeper is not None and self._keeper.due:
            self._keeper.write(self._state(epoch, progress))

    def _state(self, epoch: int, progress: Progress) -> State:
        run, tally = self._run, self._run.processes.total(progress.tally)
        return State(
            recipe=run.recipe,
            precision=run.precision,
            dataset=run.dataset.digest(),
            definition=run.definition.source() or "",
            epoch=epoch,
            seconds=perf_counter() - self._began,
            progress=replace(progress, tally=tally),
            curves=tuple(self._curves),
            generators=run.processes.of_all(generators()),
            parts=states_of(self._trainer),
            best=self._best,
            micro_batch=run.size.now,
            resumes=self._resumes,
        )
