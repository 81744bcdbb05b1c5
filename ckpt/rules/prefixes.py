"""Prefixes: remove or add one, and remove those of the wrappers of torch and of trainers.

Sources of the wrappers: torch 2.13, `DataParallel` and `DistributedDataParallel` (`module.`),
`torch.compile` (`_orig_mod.`), FSDP (`_fsdp_wrapped_module.`), activation checkpointing
(`_checkpoint_wrapped_module.`), `AveragedModel` (`module.` and `n_averaged`); Lightning, whose
module usually calls its network `model`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ckpt.errors import PlanError
from ckpt.rules.planned import Planned, with_keys

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
class Strip:
    """Remove a prefix from the keys that have it."""

    prefix: str

    @property
    def text(self) -> str:
        """Its name in messages."""
        return f"strip {self.prefix}"

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """The tensors without the prefix."""
        return with_keys(tensors, lambda key: key.removeprefix(self.prefix))

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """The prefix, if no key has it."""
        return None if changed else self.prefix


@dataclass(frozen=True, slots=True)
class Add:
    """Add a prefix to every key."""

    prefix: str

    @property
    def text(self) -> str:
        """Its name in messages."""
        return f"add {self.prefix}"

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """The tensors with the prefix.

        Raises:
            PlanError: All keys already have it.
        """
        if tensors and all(tensor.key.startswith(self.prefix) for tensor in tensors):
            raise PlanError(f"all {len(tensors):,} keys already begin with {self.prefix!r}")
        return with_keys(tensors, lambda key: self.prefix + key)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """Nothing: every key can get a prefix."""
        return None


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Remove wrappers, in any order and number."""

    text: str = "unwrap"

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """The tensors without the wrappers."""
        after = with_keys(tensors, unwrapped)
        holder = _holder(tensor.key for tensor in after)
        return after if holder is None else with_keys(after, partial(_without, holder))

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """The prefix, if no key has it."""
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


def _without(holder: str, key: str) -> str:
    return unwrapped(key.removeprefix(holder))


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
