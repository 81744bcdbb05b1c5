"""ckpt: rename, diff and version PyTorch checkpoints without running them.

What the command line does, this module does. Nothing is imported before it is used, and
torch only where tensors are asked for or a definition is built.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt.ops.alias import delete_alias, set_alias
    from ckpt.ops.diff import diff
    from ckpt.ops.du import usage
    from ckpt.ops.export import export
    from ckpt.ops.fsck import check_index, rebuild_index
    from ckpt.ops.gc import collect, find_garbage
    from ckpt.ops.load import load, open
    from ckpt.ops.log import log
    from ckpt.ops.register import register
    from ckpt.ops.rename import rename
    from ckpt.ops.rm import remove
    from ckpt.ops.tag import tag
    from ckpt.ops.undo import undo
    from ckpt.ops.verify import verify
    from ckpt.ops.verify.repair import repair
    from ckpt.registry.registry import Registry

__version__ = "0.1.0"
__all__ = [
    "Registry",
    "check_index",
    "collect",
    "delete_alias",
    "diff",
    "export",
    "find_garbage",
    "load",
    "log",
    "open",
    "rebuild_index",
    "register",
    "remove",
    "rename",
    "repair",
    "set_alias",
    "tag",
    "undo",
    "usage",
    "verify",
]

_HOMES = {
    "Registry": "ckpt.registry.registry",
    "check_index": "ckpt.ops.fsck",
    "collect": "ckpt.ops.gc",
    "delete_alias": "ckpt.ops.alias",
    "diff": "ckpt.ops.diff",
    "export": "ckpt.ops.export",
    "find_garbage": "ckpt.ops.gc",
    "load": "ckpt.ops.load",
    "log": "ckpt.ops.log",
    "open": "ckpt.ops.load",
    "rebuild_index": "ckpt.ops.fsck",
    "register": "ckpt.ops.register",
    "remove": "ckpt.ops.rm",
    "rename": "ckpt.ops.rename",
    "repair": "ckpt.ops.verify.repair",
    "set_alias": "ckpt.ops.alias",
    "tag": "ckpt.ops.tag",
    "undo": "ckpt.ops.undo",
    "usage": "ckpt.ops.du",
    "verify": "ckpt.ops.verify",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'ckpt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
