"""The door to the measurements; torch is imported when they begin."""

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.tips.diagnosis import Diagnosis
from ckpt.train.watch.events import Callback, ignore

# Settings of a recipe that change nothing here: those that are tried, and those of whole runs.
TRIED = ("accumulate", "loader", "micro_batch", "num_workers", "precision", "prefetch_factor")
UNUSED = (
    *("ema", "epochs", "holdout", "init", "keep"),
    *("lr", "lr_decay", "patience", "schedule", "warmup"),
)


def doctor(recipe: Recipe, *, callback: Callback = ignore) -> Diagnosis:
    """Measure which of the five tips help a recipe's model on its dataset.

    Nothing is written, and the global generators are restored. Takes a minute or so: some steps
    of each way, in turns.

    Args:
        recipe: Its batch size, optimizer and device are the starting point; values of the
            settings in `TRIED` are tried, and those in `UNUSED` are not used.
        callback: Gets notes on what is measured now.

    Raises:
        CkptError: As for a training run.
    """
    from ckpt.train.tips.measuring import measure

    return measure(recipe, callback)
