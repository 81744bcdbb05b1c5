"""ckpt: rename, diff and version PyTorch checkpoints without running them.

The command `ckpt X` is the function `ckpt.X`. It takes what you have: a path, a ref of the registry
such as ``net@prod``, a state_dict, a module, or, where weights must fit something, a class:

    >>> ckpt.diff("old.pt", Net).fitting.fit.fits  # does it load?
    False
    >>> weights = ckpt.rename(torch.load("old.pt"), to=Net)  # the same tensors, other keys
    >>> net.load_state_dict(weights)
    <All keys matched successfully>

A registry keeps every version, and an alias says which one counts:

    >>> registry = ckpt.Registry("models")
    >>> registry.register(net, name="net", metrics={"accuracy": 0.992}, alias="prod").version.ref
    'net:v1'
    >>> net.load_state_dict(registry.load("net@prod"))
    <All keys matched successfully>
    >>> bool(registry.diff("net@prod", net))  # True if anything differs
    False

For a training loop of your own, `ckpt.train.accumulate` is exact gradient accumulation, 16 bits and
DDP in four lines; `ckpt.train.doctor(Net)` measures what makes a model train faster; and
`ckpt.register(net, curves={"loss": [0.5, 0.2]})` keeps curves for `ckpt.plot`.

Without a registry named, functions find one as the command does; `registry="folder"` names it.
Results print as the command prints them, in notebooks too. Errors are `ckpt.errors.CkptError`, with
a `hint`; some are `ValueError`, `KeyError` or `FileNotFoundError` as well. docs/python.md has more.

Modules are imported on first use; torch only to return tensors, build a definition or train.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt.in_python import Registry as Registry
    from ckpt.migrate.hook import migrating as migrating
    from ckpt.ops.alias import alias as alias
    from ckpt.ops.alias import alias_history as alias_history
    from ckpt.ops.alias import aliases as aliases
    from ckpt.ops.audit import audit as audit
    from ckpt.ops.blame import blame as blame
    from ckpt.ops.card import card as card
    from ckpt.ops.clone import clone as clone
    from ckpt.ops.copy import copy as copy
    from ckpt.ops.diff import diff as diff
    from ckpt.ops.du import du as du
    from ckpt.ops.evict import evict as evict
    from ckpt.ops.export import export as export
    from ckpt.ops.fetch import fetch as fetch
    from ckpt.ops.fsck import fsck as fsck
    from ckpt.ops.fsck import rebuild_index as rebuild_index
    from ckpt.ops.gc import gc as gc
    from ckpt.ops.guard import guard as guard
    from ckpt.ops.guard import take_snapshots as take_snapshots
    from ckpt.ops.import_ import import_versions as import_versions
    from ckpt.ops.load import load as load
    from ckpt.ops.load import load_into as load_into
    from ckpt.ops.load import open as open
    from ckpt.ops.log import log as log
    from ckpt.ops.ls import ls as ls
    from ckpt.ops.metric import metric as metric
    from ckpt.ops.migrate import check_migrations as check_migrations
    from ckpt.ops.migrate import export_migrations as export_migrations
    from ckpt.ops.migrate import list_migrations as list_migrations
    from ckpt.ops.migrate import migrate as migrate
    from ckpt.ops.migrate import new_migration as new_migration
    from ckpt.ops.migrate.optimizer import load_optimizer as load_optimizer
    from ckpt.ops.note import note as note
    from ckpt.ops.pin import pin as pin
    from ckpt.ops.plot import plot as plot
    from ckpt.ops.pull import pull as pull
    from ckpt.ops.push import push as push
    from ckpt.ops.redo import redo as redo
    from ckpt.ops.register import register as register
    from ckpt.ops.registry import init_registry as init_registry
    from ckpt.ops.remote import add_remote as add_remote
    from ckpt.ops.remote import check_remote as check_remote
    from ckpt.ops.remote import remotes as remotes
    from ckpt.ops.remote import remove_remote as remove_remote
    from ckpt.ops.rename import apply as apply
    from ckpt.ops.rename import plan_rename as plan_rename
    from ckpt.ops.rename import rename as rename
    from ckpt.ops.repair import repair as repair
    from ckpt.ops.restore import restore as restore
    from ckpt.ops.rm import rm as rm
    from ckpt.ops.rules import import_rules as import_rules
    from ckpt.ops.show import show as show
    from ckpt.ops.sign import sign as sign
    from ckpt.ops.site import site as site
    from ckpt.ops.tag import tag as tag
    from ckpt.ops.train import train as train
    from ckpt.ops.undo import undo as undo
    from ckpt.ops.verify import verify as verify
    from ckpt.ops.verify.repair import repair_store as repair_store
    from ckpt.ops.verify.signed import verify_signatures as verify_signatures

__version__ = "0.1.0"

# Functions that their module is not named after.
_ELSEWHERE = {
    "Registry": "ckpt.in_python",
    "add_remote": "ckpt.ops.remote",
    "alias_history": "ckpt.ops.alias",
    "aliases": "ckpt.ops.alias",
    "apply": "ckpt.ops.rename",
    "check_migrations": "ckpt.ops.migrate",
    "check_remote": "ckpt.ops.remote",
    "export_migrations": "ckpt.ops.migrate",
    "import_rules": "ckpt.ops.rules",
    "import_versions": "ckpt.ops.import_",
    "init_registry": "ckpt.ops.registry",
    "list_migrations": "ckpt.ops.migrate",
    "load_into": "ckpt.ops.load",
    "load_optimizer": "ckpt.ops.migrate.optimizer",
    "migrating": "ckpt.migrate.hook",
    "new_migration": "ckpt.ops.migrate",
    "open": "ckpt.ops.load",
    "plan_rename": "ckpt.ops.rename",
    "rebuild_index": "ckpt.ops.fsck",
    "remotes": "ckpt.ops.remote",
    "remove_remote": "ckpt.ops.remote",
    "repair_store": "ckpt.ops.verify.repair",
    "take_snapshots": "ckpt.ops.guard",
    "verify_signatures": "ckpt.ops.verify.signed",
}
_COMMANDS = (
    *(
        "alias",
        "audit",
        "blame",
        "card",
        "clone",
        "diff",
        "du",
        "evict",
        "export",
        "fetch",
        "fsck",
        "gc",
        "guard",
        "load",
        "log",
        "ls",
    ),
    *(
        "copy",
        "metric",
        "migrate",
        "note",
        "pin",
        "plot",
        "pull",
        "push",
        "redo",
        "register",
        "rename",
        "repair",
        "restore",
        "rm",
    ),
    *("show", "sign", "site", "tag", "train", "undo", "verify"),
)
__all__ = sorted([*_COMMANDS, *_ELSEWHERE])
_CALLBACKS = ("lightning", "transformers")  # modules that need these packages


class _Package(ModuleType):
    """Keeps the functions `show` and `train`, although sub-packages have the same names."""

    def __setattr__(self, name: str, value: object) -> None:
        """Ignore the import system when it binds a sub-package to the name of a function."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _CALLBACKS:
        return import_module(f"ckpt.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'ckpt' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, f"ckpt.ops.{name}")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
