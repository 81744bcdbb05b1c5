"""A training run from recipe to tested file, to read from top to bottom.

`setup` decides everything before the first step, `batches` makes the batches, `loop` turns a window
of samples into an optimizer step, and `state` saves an interrupted run.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import isnan
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ckpt.definitions.importing import own_code
from ckpt.errors import DivergedError
from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.data.windows import epoch_seed
from ckpt.train.holdout import Best, best_epoch, is_over
from ckpt.train.loop import EpochProgress, NotFiniteError, Score, Trainer, evaluate
from ckpt.train.memory.size import SHORT, MicroBatchSize, is_out_of_memory
from ckpt.train.processes import ALONE, Processes, joined
from ckpt.train.provenance import peak_bytes, process_age
from ckpt.train.random_numbers import generators, restored, seed_all
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.setup import Setup, check_epochs, check_processes, check_torch, find_device
from ckpt.train.state import Keeper, State, states_of
from ckpt.train.watch.events import Callback, Ended, Epoch, StepDone, Trained, ignore
from ckpt.train.weights import check_destination, portable, read_weights, write_weights

_AT_ONCE = 250  # images that are scored; more are no faster
_CALMER = "a smaller --lr, --clip 1 or a warm-up (--schedule onecycle) may help"


def train(
    recipe: Recipe,
    out: Path,
    *,
    callback: Callback = ignore,
    replace: bool = False,
    keeper: Keeper | None = None,
    resumed: State | None = None,
    processes: Processes = ALONE,
    initial: Mapping[str, torch.Tensor] | None = None,
) -> Trained | None:
    """Train, write the weights to `out`, read them back and score the test images once.

    The score is that of the file: loaded strictly into a new module, in fp32. A run that fails
    or is interrupted leaves no file. The global generators are restored at the end.

    Args:
        recipe: The settings.
        out: Its suffix selects the format.
        callback: Gets every event, `Ended` last; in rank 0 only.
        replace: Whether to replace an existing file.
        keeper: Writes the state of the run at intervals, and when a signal ends it.
        resumed: The state to continue from; `recipe` is its own then, perhaps with other
            `epochs`, `device` or `data_dir`.
        processes: Each of them calls this; only rank 0 writes, and returns a result.
        initial: The state_dict that `recipe.init` names; a resumed run needs none.

    Raises:
        InterruptedTrainingError: A signal ended it; `keeper` has written its state.
        DivergedError: The loss or the gradient is not finite; `keeper` has the state before.
        CkptError: `out` cannot be written; or the device, the definition, `initial` or the dataset
            is not available, or does not fit the others.
    """
    callback = callback if processes.is_first else ignore
    began, age = perf_counter(), process_age()
    try:
        check_torch()
        check_processes(recipe, resumed, processes)
        check_epochs(recipe, resumed)
        _check_files(recipe, out, resumed, replace=replace)
        device = find_device(recipe.device, processes)
        with joined(processes), _repeatable(device):
            setup = Setup(recipe, device, processes, callback, resumed=resumed, initial=initial)
            callback(setup.started())
            run = _Run(setup, callback, keeper, resumed)
            ready = perf_counter()
            run.train_epochs()
            clock = {"process": age, "warm_up": ready - began, "loop": perf_counter() - ready}
            written = run.written()
            return run.finish(out, written, replace, began, clock) if processes.is_first else None
    finally:
        callback(Ended())


def _check_files(recipe: Recipe, out: Path, resumed: State | None, *, replace: bool) -> None:
    """Refuse before the training what could not be written after it."""
    # A run that was interrupted after it had written its weights finds them here.
    is_written = resumed is not None and is_over(resumed.curves, recipe)
    for path in filter(None, (out, _last_path(out, recipe))):
        check_destination(path, replace=replace or is_written)


def _last_path(out: Path, recipe: Recipe) -> Path | None:
    """The file for the last epoch's weights, if the recipe keeps both."""
    return out.with_name(f"{out.stem}.last{out.suffix}") if recipe.keep == "both" else None


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Restore the generators afterwards, and let cuDNN use deterministic algorithms only.

    TensorFloat-32 stays as the user has set it; without the argument torch would turn it on.
    """
    with (
        restored(device),
        torch.backends.cudnn.flags(
            enabled=True,
            benchmark=False,
            deterministic=True,
            allow_tf32=torch.backends.cudnn.allow_tf32,
        ),
    ):
        yield


class _Run:
    """The epochs of a run, one after another, from its start or from a state."""

    def __init__(
        self, setup: Setup, callback: Callback, keeper: Keeper | None, resumed: State | None
    ) -> None:
        self.setup, self.callback, self.keeper, self.resumed = setup, callback, keeper, resumed
        self.curves: list[Epoch] = [*resumed.curves] if resumed else []
        self.best = resumed.best if resumed else None
        self.resumes = resumed.resumes + 1 if resumed else 0
        self._epoch_began = 0.0  # perf_counter's
        self._trainer = Trainer(
            setup.model,
            setup.precision.name,
            setup.recipe,
            windows=setup.batches.window_count,
            processes=setup.processes,
            size=setup.size,
        )

    def train_epochs(self) -> None:
        """Train until all epochs are done, or the hold-out's loss stops falling.

        Raises:
            InterruptedTrainingError: A signal ended it; the keeper has the state.
        """
        progress = self.resumed.restore(self._trainer) if self.resumed else None
        with self.keeper.listening() if self.keeper else nullcontext():
            # Rank 0 decides for all: two GPUs may round a loss in two ways.
            while not self.setup.processes.of_first(is_over(self.curves, self.setup.recipe)):
                self._train_epoch(len(self.curves) + 1, progress)
                progress = None
            if self.keeper:  # once more: writing and testing may fail, and the epochs took long
                self._epoch_began = perf_counter()
                self.keeper.agree()
                self._keep(self.keeper, len(self.curves) + 1, self._trainer.new_epoch())

    def _train_epoch(self, epoch: int, resumed_at: EpochProgress | None) -> None:
        """Train one epoch: a step for each window, then the score of the hold-out."""
        trainer, batches = self._trainer, self.setup.batches
        already = self.resumed.seconds if self.resumed and resumed_at else 0.0
        self._epoch_began = perf_counter() - already
        progress = resumed_at or trainer.new_epoch()
        if not progress.windows:  # each epoch has its own stream of dropout masks
            rank = self.setup.processes.rank
            stream = f"dropout {rank}" if rank else "dropout"
            seed_all(epoch_seed(stream, self.setup.recipe.seed, epoch))
        try:
            for _ in trainer.steps(batches.windows(epoch, first=progress.windows), progress):
                self.callback(StepDone(epoch, progress.samples))
                if self.keeper and self.keeper.due:
                    self._keep(self.keeper, epoch, progress)
            score, norm = trainer.end_epoch(progress)
        except NotFiniteError as error:
            raise self._diverged(epoch, progress, error) from error
        seconds = perf_counter() - self._epoch_began
        held_out = self._score(trainer.result, batches.holdout) if batches.holdout_count else None
        result = Epoch(
            epoch=epoch,
            loss=score.loss,
            accuracy=score.accuracy,
            lr=progress.lr,
            seconds=seconds,
            images_per_second=score.samples / seconds,
            skipped_steps=progress.windows - progress.steps,
            gradient_norm=norm,
            holdout_loss=held_out.loss if held_out else None,
            holdout_accuracy=held_out.accuracy if held_out else None,
        )
        self.curves.append(result)
        # Rank 0 decides: with shards all take part in what the best epoch's weights are made of.
        if held_out and self.setup.processes.of_first(best_epoch(self.curves) == epoch):
            self.best = self.last
        self.callback(result)

    def _score(self, model: nn.Module, batches: Callable[[int], Iterator[MicroBatch]]) -> Score:
        """Score a model on images of which as many at once as memory takes, at most 250."""
        setup = self.setup
        # With shards all processes have to take part in every forward pass.
        adapts = not self._trainer.is_sharded
        size = MicroBatchSize(min(setup.size.now, _AT_ONCE), adapts, callback=self.callback)
        while True:
            try:
                with own_code(setup.recipe.model, passes=is_out_of_memory):
                    return evaluate(model, batches(size.now), setup.recipe.loss)
            except SHORT as error:
                if not is_out_of_memory(error):
                    raise
                size.halve(error)

    def _diverged(
        self, epoch: int, progress: EpochProgress, error: NotFiniteError
    ) -> DivergedError:
        """The error for the user; the state before that step is written.

        Not if the epoch's end told: the weights are those after the step.
        """
        hint = _CALMER
        if self.keeper and progress.windows < self.setup.batches.window_count:
            self._keep(self.keeper, epoch, progress)
            hint += f"; {self.keeper.path} has the weights before that step"
        return DivergedError(
            f"{error} in epoch {epoch}, after {progress.samples:,} images", hint=hint
        )

    @property
    def last(self) -> Best:
        """The last epoch."""
        return Best(len(self.curves), portable(self._trainer.result))

    def written(self) -> tuple[Best, Best]:
        """The epoch to write, the best one on the hold-out or the last; and the last."""
        last = self.last
        return last if self.setup.recipe.keep == "last" else self.best or last, last

    def _keep(self, keeper: Keeper, epoch: int, progress: EpochProgress) -> None:
        """Write the state, for a resumed run to continue from."""
        setup = self.setup
        tally = setup.processes.total(progress.tally)
        keeper.write(
            State(
                recipe=setup.recipe,
                precision=setup.precision,
                dataset=setup.dataset.digest(),
                definition=setup.source,
                epoch=epoch,
                seconds=perf_counter() - self._epoch_began,
                progress=replace(progress, tally=tally),
                curves=tuple(self.curves),
                generators=setup.processes.of_all(generators(setup.device)),
                parts=states_of(self._trainer),
                best=self.best,
                micro_batch=setup.size.now,
                resumes=self.resumes,
                outputs=keeper.outputs,
            )
        )

    def finish(
        self,
        out: Path,
        written: tuple[Best, Best],
        replace: bool,
        began: float,
        clock: Mapping[str, float | None],
    ) -> Trained:
        """Write the weights, read the file back, and score the test images with it."""
        setup, last_out = self.setup, _last_path(out, self.setup.recipe)
        kept, last = written
        write_weights(kept.weights, out, replace=replace)
        if last_out is not None:
            write_weights(last.weights, last_out, replace=replace)
        model = setup.definition.build()
        read_weights(model, out)
        score = self._score(model.to(setup.device), setup.batches.test)
        if isnan(score.loss):
            raise DivergedError(f"{out}: its loss on the test images is nan", hint=_CALMER)
        seconds, peak = perf_counter() - began, peak_bytes(setup.device)
        recorded: dict[str, Any] = {
            **setup.record(),
            "epoch": kept.epoch,
            "seconds": round(seconds, 3),
            "peak_bytes": peak,
            "wall_clock": {part: took and round(took, 3) for part, took in clock.items()},
        }
        if self.resumed:
            recorded["resumes"] = self.resumes
        trained = Trained(
            path=out,
            last_path=last_out,
            epoch=kept.epoch,
            curves=tuple(self.curves),
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            test_correct=score.correct,
            test_count=score.samples,
            seconds=seconds,
            peak_bytes=peak,
            record=recorded,
            definition_source=setup.source,
        )
        self.callback(trained)
        return trained
