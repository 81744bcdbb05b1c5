"""The trainer: `ckpt.train.run.train` turns a `ckpt.train.recipes.recipe.Recipe` into weights.

It prints nothing: a `ckpt.train.watch.events.Callback` gets the events of a run.
This package, `recipes`, `tips`, `data.windows` and `watch.events` are importable without torch.

`accumulate` is for loops of your own, `doctor` measures a model of yours, `Progress` prints a run;
``ckpt.train.accumulate`` and so on are the same.
"""

from ckpt.train.tips.accumulation import accumulate as accumulate
from ckpt.train.tips.doctor import doctor as doctor
from ckpt.train.watch.progress import Progress as Progress

__all__ = ["Progress", "accumulate", "doctor"]
