"""The trainer: `ckpt.train.run.train` turns a `ckpt.train.recipe.Recipe` into weights.

Prints nothing: whoever wants to see progress hands in a `ckpt.train.watch.Watcher`.
This package, `recipe`, `windows` and `watch` are importable without torch.
"""
