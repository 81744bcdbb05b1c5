"""The door to the measurements; torch is imported when they begin."""

from typing import Any

from ckpt.train.recipes.recipe_file import Asked, recipe_for
from ckpt.train.tips.diagnosis import Diagnosis
from ckpt.train.watch.events import Callback, ignore

# Settings of a recipe that change nothing here: those that are tried, and those of whole runs.
TRIED = ("accumulate", "loader", "micro_batch", "num_workers", "precision", "prefetch_factor")
UNUSED = (
    *("ema", "epochs", "holdout", "init", "keep"),
    *("lr", "lr_decay", "parallel", "patience", "schedule", "warmup"),
)


def doctor(
    recipe: Asked | None = None, *, callback: Callback = ignore, **settings: Any
) -> Diagnosis:
    """Measure which of the five tips help a model on a dataset.

        ckpt.train.doctor(Net, dataset="photos/")

    Nothing is written, and the global generators are restored. Takes a minute or so: some steps
    of each way, in turns. It starts workers, so a script calls it below
    ``if __name__ == "__main__":``.

    Args:
        recipe: A class, its ref (``net.py:Net``), or a recipe. Its batch size, optimizer and
            device are the starting point; values of the settings in `TRIED` are tried, and those
            in `UNUSED` are not used.
        callback: Gets notes on what is measured now; `ckpt.train.Progress()` prints them.
        **settings: Override those of the recipe.

    Raises:
        CkptError: As for a training run.
    """
    from ckpt.train.tips.measuring import measure

    return measure(recipe_for(recipe, settings), callback)
