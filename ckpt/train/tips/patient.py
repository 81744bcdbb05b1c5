"""The model that `doctor` examines, with its data: steps, timed and weighed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.loop import Trainer
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.setup import Setup
from ckpt.train.tips.diagnosis import Spread, spread
from ckpt.train.tips.kept import Graphs
from ckpt.train.trials import step_seconds, take_step

_ROUNDS, _WARM_UP = 7, 2  # steps of each way


@dataclass(frozen=True, slots=True)
class Turns:
    """Images a second of each way, in each turn.

    Law: all figures come from the ratios of ways in the same turn, which a machine that is busy for
    some turns changes little. Speeds are these ratios times the first way's median speed, so they
    never contradict them.
    """

    figures: Sequence[Mapping[str, float]]

    def ratio(self, name: str, beside: str | None = None) -> Spread:
        """The ratios of a way to another one, by default the first."""
        beside = next(iter(self.figures[0])) if beside is None else beside
        return spread([turn[name] / turn[beside] for turn in self.figures])

    def images_per_second(self, name: str) -> float:
        """The speed of a way."""
        first = next(iter(self.figures[0]))
        return self.ratio(name).middle * median(turn[first] for turn in self.figures)


@dataclass(frozen=True, slots=True)
class Patient:
    """The model and its data."""

    setup: Setup
    recipe: Recipe

    @property
    def where(self) -> str:
        """What all figures are about."""
        images, device = self.images(1)[0], self.setup.device
        shape = " × ".join(map(str, images.shape[1:]))
        cores = torch.get_num_threads()
        threads = f"{cores} thread{'s' * (cores > 1)}" if device.type == "cpu" else str(device)
        return (
            f"{self.recipe.model} on {self.setup.dataset.title}, {shape}, {threads}, "
            f"batch {self.recipe.batch_size:,}"
        )

    def images(self, count: int) -> MicroBatch:
        """The first images of the dataset, at most `count`."""
        return self.setup.batches.first_images(count)

    def trainer(self, precision: str = "fp32") -> Trainer:
        """One with a copy of the model; a loss that is not finite does not matter here."""
        model = copy.deepcopy(self.setup.model).train()
        return Trainer(model, precision, self.recipe, checks=False)

    def in_turns(self, ways: Mapping[str, tuple[str, Sequence[MicroBatch]]]) -> Turns:
        """The speeds of ways, each a precision and the micro-batches of a window."""
        steps = {
            name: partial(self._images_per_second, self.trainer(precision), batches)
            for name, (precision, batches) in ways.items()
        }
        turns = [{name: step() for name, step in steps.items()} for _ in range(_WARM_UP + _ROUNDS)]
        return Turns(turns[_WARM_UP:])

    def _images_per_second(self, trainer: Trainer, batches: Sequence[MicroBatch]) -> float:
        return sum(len(labels) for _, labels in batches) / step_seconds(trainer, batches)

    def held(self, batches: Sequence[MicroBatch], precision: str = "fp32") -> int:
        """The most bytes that the graphs of a window hold at one time."""
        trainer = self.trainer(precision)
        graphs = Graphs(trainer.model)
        with graphs.watched():
            take_step(trainer, batches)
        return graphs.most
