"""The door to the measurements; torch is imported when they begin."""

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.tips.diagnosis import Diagnosis
from ckpt.train.watch.events import Callback, ignore


def doctor(recipe: Recipe, *, callback: Callback = ignore) -> Diagnosis:
    """Measure which of the five tips help a recipe's model on its dataset.

    Nothing is written, and the global generators are restored. Takes a minute or so: some steps
    of each way, in turns.

    Args:
        recipe: Its batch size, optimizer and device are the starting point; its precision and
            loader are tried. The learning rate is not used, so that no run diverges.
        callback: Gets notes on what is measured now.

    Raises:
        CkptError: As for a training run.
    """
    from ckpt.train.tips.measuring import measure

    return measure(recipe, callback)
