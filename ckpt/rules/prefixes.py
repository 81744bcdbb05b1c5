"""Prefixes: remove or add one, and remove those of the wrappers of torch and of trainers.

Sources of the wrappers: torch 2.13, `DataParallel` and `DistributedDataParallel` (`module.`),
`torch.compile` (`_orig_mod.`), FSDP (`_fsdp_wrapped_module.`), activation checkpointing
(`_checkpoint_wrapped_module.`), `AveragedModel` (`module.` and `n_averaged`); Lightning, whose
module usually calls its network `model`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckpt.errors import PlanError
from ckpt.rules.planned import Planned, Renaming, with_keys

# Attributes that no hand-written network has: removed anywhere in a key.
_ANYWHERE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_MODULE = "module"  # of a parallel wrapper: at the start of a key, or next to one of the above
# The names of the network in a trainer, if everything else is a second copy of it.
_HOLDERS = ("model.", "network.", "net.", "state_dict.")
# A second copy of the network keeps its prefix, and so stays separate.
_COPIES = (
    *("ema.", "ema_model.", "model_ema.", "averaged_model.", "teacher.", "target."),
    "n_averaged",
)


@dataclass(frozen=True, slots=True)
class Strip(Renaming):
    """Remove a prefix from the keys that have it."""

    prefix: str

    @property
    def text(self) -> str:
        return f"strip {self.prefix}"

    def apply(self, key: str) -> str:
        return key.removeprefix(self.prefix)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if changed else self.prefix


@dataclass(frozen=True, slots=True)
class Add(Renaming):
    """Add a prefix to every key."""

    prefix: str

    @property
    def text(self) -> str:
        return f"add {self.prefix}"

    def apply(self, key: str) -> str:
        return self.prefix + key

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        if keys and all(key.startswith(self.prefix) for key in keys):
            raise PlanError(f"all {len(keys):,} keys already begin with {self.prefix!r}")
        return None


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Remove wrappers, in any order and number."""

    text: str = "unwrap"

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        after = with_keys(tensors, unwrapped)
        holder = _holder(tensor.key for tensor in after)
        if holder is None:
            return after
        return with_keys(after, lambda key: unwrapped(key.removeprefix(holder)))

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if changed else "module."


def unwrapped(key: str) -> str:
    """One key without the wrappers that can be recognised from it alone.

    E.g. ``module._orig_mod.fc.weight`` gives ``fc.weight``, and ``model._orig_mod.fc.weight``
    gives ``model.fc.weight``.
    """
    kept: list[str] = []
    wrapped = True  # at the start, or right after a wrapper
    parts = key.split(".")
    for number, part in enumerate(parts):
        before_wrapper = parts[number + 1 : number + 2] != [] and parts[number + 1] in _ANYWHERE
        if part in _ANYWHERE or (part == _MODULE and (wrapped or before_wrapper)):
            wrapped = True
        else:
            kept.append(part)
            wrapped = False
    return ".".join(kept) if kept else key


def wrappers_of(old: str, new: str) -> list[str]:
    """The dotted parts of `old` that `new` lacks, e.g. ``["module.", "_orig_mod."]``."""
    left, gone = new.split("."), []
    for part in reversed(old.split(".")):
        if left and left[-1] == part:
            left.pop()
        else:
            gone.append(f"{part}.")
    return gone[::-1]


def _holder(keys: Iterable[str]) -> str | None:
    """The prefix that all keys have, except those of second copies."""
    own = [key for key in keys if not key.startswith(_COPIES)]
    for holder in _HOLDERS:
        if own and all(key.startswith(holder) and key != holder for key in own):
            return holder
    return None
