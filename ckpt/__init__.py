"""ckpt: rename, diff and version PyTorch checkpoints without running them.

The command `ckpt X` is the function `ckpt.X`, defined in `ckpt.ops.X`. Modules are imported on
first use; torch only to return tensors, build a definition or train a model.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt.ops.alias import alias
    from ckpt.ops.audit import audit
    from ckpt.ops.blame import blame
    from ckpt.ops.diff import diff
    from ckpt.ops.du import du
    from ckpt.ops.export import export
    from ckpt.ops.fsck import fsck, rebuild_index
    from ckpt.ops.gc import gc
    from ckpt.ops.load import load, open
    from ckpt.ops.log import log
    from ckpt.ops.ls import ls
    from ckpt.ops.plot import plot
    from ckpt.ops.register import register
    from ckpt.ops.rename import apply, plan_rename, rename
    from ckpt.ops.rm import rm
    from ckpt.ops.show import show
    from ckpt.ops.tag import tag
    from ckpt.ops.train import train
    from ckpt.ops.undo import undo
    from ckpt.ops.verify import verify
    from ckpt.ops.verify.repair import repair
    from ckpt.registry.registry import Registry

__version__ = "0.1.0"
__all__ = [
    "Registry",
    "alias",
    "apply",
    "audit",
    "blame",
    "diff",
    "du",
    "export",
    "fsck",
    "gc",
    "load",
    "log",
    "ls",
    "open",
    "plan_rename",
    "plot",
    "rebuild_index",
    "register",
    "rename",
    "repair",
    "rm",
    "show",
    "tag",
    "train",
    "undo",
    "verify",
]

# Functions that their module is not named after.
_ELSEWHERE = {
    "Registry": "ckpt.registry.registry",
    "apply": "ckpt.ops.rename",
    "open": "ckpt.ops.load",
    "plan_rename": "ckpt.ops.rename",
    "rebuild_index": "ckpt.ops.fsck",
    "repair": "ckpt.ops.verify.repair",
}


class _Package(ModuleType):
    """Keeps the functions `show` and `train`, although sub-packages have the same names."""

    def __setattr__(self, name: str, value: object) -> None:
        """Ignore the import system when it binds a sub-package to the name of a function."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'ckpt' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, f"ckpt.ops.{name}")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
