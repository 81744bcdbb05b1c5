"""The registry as Python code uses it: its versions, and the commands that work on them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import ckpt
from ckpt.printed import Printed
from ckpt.registry.registry import Registry as _Registry

P = ParamSpec("P")
R = TypeVar("R")


class _Method(Generic[P, R]):
    """A function of the package as a method of the registry; it is imported when it is called."""

    def __init__(self, found: Callable[[], Callable[P, R]]) -> None:
        self._found = found

    def __get__(self, registry: "Registry | None", _owner: type) -> Callable[P, R]:
        function: Callable[..., R] = self._found()
        if registry is None:
            return function

        @wraps(function)
        def bound(*arguments: Any, **named: Any) -> R:
            return function(*arguments, **{"registry": registry, **named})

        return bound


class Registry(Printed, _Registry):
    """A registry of models: the versions, and every command on them as a method.

    Args:
        folder: The folder of `registry.json`; None finds it: `CKPT_REGISTRY`, else the nearest
            folder upwards that has one, else this folder, where the first version creates one.

    Example:
        >>> registry = ckpt.Registry("models")
        >>> registry.register(net, name="net", metrics={"accuracy": 0.992}).version.ref
        'net:v1'
        >>> registry.alias("net@prod", "v1").version
        'v1'
        >>> net.load_state_dict(registry.load("net@prod"))
        <All keys matched successfully>
        >>> [version.ref for version in registry.versions("net")], registry.models
        (['net:v1'], ['net'])
        >>> bool(registry.diff("net@prod", net))
        False
    """

    VIEW: ClassVar = "ckpt.show.ls:registry_text"

    # What reads.
    aliases = _Method(lambda: ckpt.aliases)
    alias_history = _Method(lambda: ckpt.alias_history)
    audit = _Method(lambda: ckpt.audit)
    blame = _Method(lambda: ckpt.blame)
    diff = _Method(lambda: ckpt.diff)
    du = _Method(lambda: ckpt.du)
    export = _Method(lambda: ckpt.export)
    load = _Method(lambda: ckpt.load)
    load_into = _Method(lambda: ckpt.load_into)
    log = _Method(lambda: ckpt.log)
    ls = _Method(lambda: ckpt.ls)
    open = _Method(lambda: ckpt.open)
    pin = _Method(lambda: ckpt.pin)
    plan_rename = _Method(lambda: ckpt.plan_rename)
    plot = _Method(lambda: ckpt.plot)
    show = _Method(lambda: ckpt.show)
    verify = _Method(lambda: ckpt.verify)
    verify_signatures = _Method(lambda: ckpt.verify_signatures)
    # What writes.
    alias = _Method(lambda: ckpt.alias)
    copy = _Method(lambda: ckpt.copy)
    gc = _Method(lambda: ckpt.gc)
    import_versions = _Method(lambda: ckpt.import_versions)
    metric = _Method(lambda: ckpt.metric)
    note = _Method(lambda: ckpt.note)
    redo = _Method(lambda: ckpt.redo)
    register = _Method(lambda: ckpt.register)
    rename = _Method(lambda: ckpt.rename)
    restore = _Method(lambda: ckpt.restore)
    rm = _Method(lambda: ckpt.rm)
    sign = _Method(lambda: ckpt.sign)
    tag = _Method(lambda: ckpt.tag)
    undo = _Method(lambda: ckpt.undo)

    @property
    def models(self) -> list[str]:
        """The names of its models that have versions."""
        return list(self.index().present)

    def _brief(self) -> str:
        models = self.index().present.values()
        versions = sum(len(model.versions) for model in models)
        return f"{self.folder}: {_count(len(models), 'model')}, {_count(versions, 'version')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
