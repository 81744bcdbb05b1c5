"""Registering from another trainer's callbacks: `ckpt.lightning` and `ckpt.transformers`.

Laws: a run never fails by it, whatever goes wrong is a warning; an alias moves under the lock of
the index, only to a version that is better than the one that it points to by then.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ckpt.errors import ConditionError, ConflictError, UsageError
from ckpt.io.documents.strict_json import plain
from ckpt.ops.alias import NOTHING, alias
from ckpt.ops.register import register
from ckpt.refs import expect_alias, expect_new_name
from ckpt.registry.condition import parse_condition
from ckpt.registry.registry import InRegistry, Registry

if TYPE_CHECKING:
    import torch

_DEEPEST = 4  # levels of a configuration that are kept


class Registering:
    """What both callbacks are: what to register of a run, and under which name.

    Args:
        name: The model in the registry.
        lowest: The metric whose lowest value is the best, e.g. ``val_loss``; its improvements are
            registered, and the alias moves with them.
        highest: The same for a metric whose highest value is the best, e.g. ``eval_accuracy``.
        every_evaluation: Register every evaluation, better or not.
        best: The alias, for `lowest` and `highest`.
        registry: The registry or its folder; None finds it as the command line does, now.

    Without `lowest`, `highest` and `every_evaluation` the weights at the end are registered.

    Attributes:
        versions: What was registered, ``net:v1``, oldest first.
        so_far: The best value of the metric in this run; infinite before the first.

    Raises:
        UsageError: A name is not valid, or both metrics are given.
    """

    def __init__(
        self,
        name: str,
        *,
        lowest: str | None = None,
        highest: str | None = None,
        every_evaluation: bool = False,
        best: str = "best",
        registry: InRegistry | None = None,
    ) -> None:
        super().__init__()
        if lowest and highest:
            raise UsageError("expected lowest or highest, found both")
        self.name, self._best = expect_new_name(name), best
        expect_alias(best)
        self._metric, self._sign = lowest or highest, "<" if lowest else ">"
        if self._metric:
            parse_condition(self._condition, option="lowest" if lowest else "highest")
        self._every = every_evaluation
        self._registry = Registry.of(registry)
        self.so_far = inf if lowest else -inf
        self.versions: list[str] = []

    @property
    def _condition(self) -> str:
        return f"metric.{self._metric} {self._sign} {self._best}.metric.{self._metric}"

    @property
    def wants_end(self) -> bool:
        """Whether the weights at the end are to be registered."""
        chosen_before = self._every or self._metric
        return not chosen_before or not (self.versions or isfinite(self.so_far))

    def wants(self, metrics: Mapping[str, float]) -> bool:
        """Whether weights with these metrics are to be registered; remembers the best so far."""
        return self._improves(metrics) or self._every

    def seen(self, metrics: Mapping[str, float]) -> None:
        """Remember the metrics of an evaluation before a run was resumed."""
        self._improves(metrics)

    def _improves(self, metrics: Mapping[str, float]) -> bool:
        value = metrics.get(self._metric or "")
        better = value is not None and (
            value < self.so_far if self._sign == "<" else value > self.so_far
        )
        if better and value is not None:
            self.so_far = value
        return better

    def add(
        self,
        save: Callable[[Path], Path],
        metrics: Mapping[str, float],
        *,
        made_by: str,
        training: Mapping[str, Any],
    ) -> None:
        """Register weights, and move the alias if they are better than its version.

        Args:
            save: Writes them into a folder, and gives what to register there.
            metrics: Measured on them; numbers that are not finite are left out.
            made_by: A few words for `ckpt ls`.
            training: How they were trained.
        """
        with harmless(f"{made_by}: the weights were not registered"):
            with TemporaryDirectory(prefix="ckpt-register-") as folder:
                added = register(
                    str(save(Path(folder))),
                    registry=self._registry,
                    name=self.name,
                    metrics={name: value for name, value in metrics.items() if isfinite(value)},
                    made_by=made_by,
                    record={"training": plain(training)},
                )
            self.versions.append(added.version.ref)
            if isfinite(metrics.get(self._metric or "", inf)):
                self._move_best(added.version.label)

    def expect_metric(self, known: Mapping[str, float]) -> None:
        """Warn if the metric that decides was never measured."""
        if self._metric and not isfinite(self.so_far):
            names = ", ".join(known) or "none"
            _warn(f"no metric {self._metric} was measured, so no version is the best: {names}")

    def _move_best(self, label: str) -> None:
        ref = f"{self.name}@{self._best}"
        with harmless(f"{ref} was not moved to {label}"):
            if self._best not in self._registry.index().model(self.name).aliases:
                try:
                    alias(ref, label, expect=NOTHING, registry=self._registry)
                except ConflictError:  # another process was first: now the condition decides
                    pass
                else:
                    return
            try:
                alias(ref, label, condition=self._condition, registry=self._registry)
            except ConditionError as error:
                if self._metric not in self._registry.version(ref).metrics:
                    raise UsageError(f"{error}; {ref} has no {self._metric}") from error


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Turn whatever fails in the block into a warning: training goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # also a full disk, also a fault of ours
        _warn(f"{what}: {error}")


def _warn(text: str) -> None:
    warnings.warn(f"ckpt: {text}", stacklevel=3)


def origin(device: "torch.device") -> dict[str, Any]:
    """Machine, versions and commit of the run, for the record."""
    from ckpt.train.provenance import environment, git_state

    return {"environment": environment(device), "git": git_state(Path.cwd())}


def settings(value: object, *, depth: int = 0) -> Any:
    """A configuration for JSON: numbers, text and flags; all else as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(name): settings(each, depth=depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | set) and depth < _DEEPEST:
        return [settings(each, depth=depth + 1) for each in value]
    return str(value)[:200]
