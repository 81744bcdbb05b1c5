"""A callback for Lightning's Trainer: `Register`. Needs lightning or pytorch-lightning."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ckpt.callbacks import Registering, harmless, origin, settings


def _trainer_package() -> Any:
    """The one of the two names that is imported already, or installed."""
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda it: it not in sys.modules)
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ModuleNotFoundError("ckpt.lightning needs lightning: pip install lightning")


pl = _trainer_package()
# Rank 0 does not have their whole state_dict.
_SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


# Which of two packages `pl` is, is only known when this is imported: mypy knows no class of it.
class Register(Registering, pl.Callback):  # type: ignore[misc, name-defined]
    """Register weights of a run: its best ones by a metric, every evaluation's, or the last.

        trainer = Trainer(callbacks=[Register("classifier", lowest="val_loss")])

    Rank 0 registers the LightningModule's state_dict, with the metrics that the validation
    logged, epoch, step and hyperparameters; the alias ``classifier@best`` moves if that is better
    than the version that it points to. Whatever fails is a warning. Under DDP log with
    ``sync_dist=True``: else the metrics are rank 0's. `FSDP` and `DeepSpeed` are not supported.

    The arguments are those of `ckpt.callbacks.Registering`.
    """

    _before: Mapping[str, Any] = MappingProxyType({})
    _measured: tuple[int, dict[str, float]] = (-1, {})  # at which step

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the values of earlier epochs, which belong to other weights."""
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Register if the validation is the best so far."""
        if not _writes(trainer):
            return
        with harmless("the validation was not looked at"):
            found = trainer.callback_metrics.items()
            metrics = {
                name: float(value) for name, value in found if value is not self._before.get(name)
            }
            self._measured = (trainer.global_step, metrics)
            if self.wants(metrics):
                self._register(trainer, pl_module, metrics)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Register the last weights, if no others were."""
        if not _writes(trainer):
            return
        step, metrics = self._measured
        self.expect_metric(metrics)
        if self.wants_end:
            self._register(trainer, pl_module, metrics if step == trainer.global_step else {})

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, for the trainer's checkpoint."""
        return {"so_far": self.so_far}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the trainer's checkpoint."""
        self.so_far = state_dict["so_far"]

    def _register(self, trainer: Any, module: Any, metrics: dict[str, float]) -> None:
        made_by = f"lightning, epoch {trainer.current_epoch}"
        with harmless(f"{made_by}: the weights were not registered"):
            training = {
                "framework": f"lightning {pl.__version__}",
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "precision": str(trainer.precision),
                "processes": trainer.world_size,
                "config": settings(dict(module.hparams)),
                **origin(module.device),
            }
            self.add(
                lambda folder: _save(module, folder / f"{self.name}.pt"),
                metrics, made_by=made_by, training=training,
            )  # fmt: skip


def _writes(trainer: Any) -> bool:
    """Whether this process registers now: rank 0, in a fit that is not a rehearsal."""
    is_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
    return bool(is_fit and trainer.is_global_zero and not trainer.fast_dev_run)


def _save(module: Any, path: Path) -> Path:
    from ckpt.train.weights import portable, write_weights

    strategy = type(module.trainer.strategy).__name__
    if strategy in _SHARDED:
        raise TypeError(f"rank 0 of a {strategy} has only a part of them")
    write_weights(portable(module), path, replace=False)
    return path
