"""The model definitions that come with ckpt; `ckpt.models` once installed."""
