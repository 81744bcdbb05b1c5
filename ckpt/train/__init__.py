"""The trainer: `ckpt.train.run.train` turns a `ckpt.train.recipes.recipe.Recipe` into weights.

It prints nothing: a `ckpt.train.watch.events.Callback` gets the events of a run.
This package, `recipes`, `data.windows` and `watch.events` are importable without torch.
"""
