"""The trainer: `ckpt.train.run.train` turns a `ckpt.train.recipes.recipe.Recipe` into weights.

Prints nothing: whoever wants to see progress hands in a `ckpt.train.watch.events.Watcher`.
This package, `recipes`, `data.windows` and `watch.events` are importable without torch.
"""
