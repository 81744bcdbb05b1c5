"""A callback for transformers' Trainer: `Register`. Needs transformers."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ckpt.callbacks import Registering, harmless, origin, settings

try:
    import transformers
    from transformers import PreTrainedModel, TrainerCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    hint = "ckpt.transformers needs transformers: pip install transformers"
    raise ModuleNotFoundError(hint, name="transformers") from error

# What an evaluation logs besides measurements of the weights.
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time")
_PRIVATE = ("token", "dir", "hub_model_id", "run_name")


class Register(Registering, TrainerCallback):  # type: ignore[misc]
    """Register weights of a run: its best ones by a metric, every evaluation's, or the last.

        trainer = Trainer(model, args, callbacks=[Register("classifier", lowest="eval_loss")], …)

    Rank 0 registers what `save_pretrained` writes, with config and tokenizer beside the weights,
    the metrics of the evaluation, epoch, step and the arguments that are not the defaults; the
    alias ``classifier@best`` moves if that is better than the version that it points to. Whatever
    fails is a warning. `FSDP` and `DeepSpeed` are not supported.

    The arguments are those of `ckpt.callbacks.Registering`.
    """

    _trains = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the evaluations before a run was resumed."""
        self._trains = True
        for logged in state.log_history:
            self.seen(_measurements(logged))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Register if the evaluation is the best so far."""
        if not (self._trains and state.is_world_process_zero):
            return
        with harmless("the evaluation was not looked at"):
            found = _measurements(metrics or {})
            if self.wants(found):
                self._register(args, state, found, state.global_step, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Register the weights at the end, if no others were; they may be the best ones again."""
        self._trains = False
        if not state.is_world_process_zero:
            return
        with harmless("the end of the run was not looked at"):
            step = state.global_step
            if args.load_best_model_at_end and state.best_model_checkpoint:
                step = state.best_global_step
            found: dict[str, float] = {}
            for logged in state.log_history:
                if logged.get("step") == step:
                    found |= _measurements(logged)
            self.expect_metric(found)
            if self.wants_end:
                self._register(args, state, found, step, **kwargs)

    def _register(
        self, args: Any, state: Any, metrics: dict[str, float], step: int, **kwargs: Any
    ) -> None:
        made_by = f"transformers, step {step}"
        with harmless(f"{made_by}: the weights were not registered"):
            model = kwargs["model"]
            training = {
                "framework": f"transformers {transformers.__version__}",
                "epoch": _epoch_of(state, step),
                "step": step,
                "processes": args.world_size,
                "config": _changed(args),
                **origin(args.device),
            }
            self.add(
                lambda folder: _save(args, model, kwargs.get("processing_class"), folder),
                metrics, made_by=made_by, training=training,
            )  # fmt: skip


def _measurements(logged: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation, without its speed."""
    return {
        name: float(value)
        for name, value in logged.items()
        if name.startswith("eval_") and not name.endswith(_SPEED) and isinstance(value, int | float)
    }


def _epoch_of(state: Any, step: int) -> float | None:
    """The epoch, a fraction, in which a step was taken."""
    if step == state.global_step:
        return None if state.epoch is None else float(state.epoch)
    found = (logged["epoch"] for logged in state.log_history if logged.get("step") == step)
    return next(found, None)


def _changed(args: Any) -> dict[str, Any]:
    """The training arguments that differ from their defaults; no folders and no tokens."""
    changed = {}
    for each in fields(args):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        value = getattr(args, each.name)
        if value != default and not each.name.endswith(_PRIVATE):
            changed[each.name] = settings(value)
    return changed


def _save(args: Any, model: Any, processor: Any, folder: Path) -> Path:
    from ckpt.train.weights import portable, write_weights

    for name in ("fsdp", "deepspeed"):
        if getattr(args, name, None):
            raise TypeError(f"rank 0 has only a part of them under {name}")
    if not isinstance(model, PreTrainedModel):
        path = folder / "model.pt"
        write_weights(portable(model), path, replace=False)
        return path
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder
