"""Runs that stop as a signal would stop them, after a number of windows."""

import signal
from pathlib import Path

import pytest

from ckpt.errors import InterruptedTrainingError
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, State, read_state


class Stops(Keeper):
    """Stops as a signal would, after a number of windows."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, every=1e9)
        self._left = after

    @property
    def due(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self._asked = signal.SIGINT
        return super().due


def stopped(recipe: Recipe, folder: Path, *, after: int) -> State:
    """The state of a run that was interrupted after so many windows."""
    keeper = Stops(folder / "state.pt", after)
    with pytest.raises(InterruptedTrainingError, match="interrupted in epoch"):
        train(recipe, folder / "never.pt", keeper=keeper)
    return read_state(folder / "state.pt")


def finished(recipe: Recipe, folder: Path) -> State:
    """The state of a run at its end, before its weights are written to ``finished.pt``."""
    train(recipe, folder / "finished.pt", keeper=Keeper(folder / "state.pt", every=1e9))
    return read_state(folder / "state.pt")
