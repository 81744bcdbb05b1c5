"""Gradient checkpointing: what the blocks of a model compute is computed again, not kept.

A block keeps its input alone for the backward pass, which runs the forward pass of the block again.
Laws: gradients, running statistics and random numbers are, bit by bit, those without it, and no
key of the state_dict changes. What a model's own code keeps in attributes that are not buffers
cannot be seen: it changes twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ckpt.errors import FitError
from ckpt.train.random_numbers import generators, restore, restored

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_blocks(model: nn.Module, device: torch.device, ref: str) -> None:
    """Let each block of `model` run its forward pass again in the backward pass.

    Raises:
        FitError: There are none; or, in a forward pass, a block changes buffers.
    """
    blocks = {block: name for name, block in blocks_of(model)}
    if not blocks:
        raise FitError(
            f"{ref}: has no blocks for --gradient-checkpointing",
            hint="blocks are modules with parts of their own in an nn.Sequential or nn.ModuleList",
        )
    for block, name in blocks.items():
        block.forward = _Recomputed(block, device, f"{ref}: {name}")


def blocks_of(module: nn.Module, before: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The blocks of a model, and their names.

    A block is a module with parts of its own in an `nn.Sequential`, `nn.ModuleList` or
    `nn.ModuleDict`, as a layer of a transformer or a residual block; not what is inside of one.
    """
    for name, part in module.named_children():
        has_parts = type(part) not in _CONTAINERS and next(part.children(), None) is not None
        if has_parts and isinstance(module, _CONTAINERS):
            yield before + name, part
        else:
            yield from blocks_of(part, f"{before}{name}.")


class _Recomputed:
    """The forward pass of a block; a copy of the block gets a copy of it."""

    def __init__(self, block: nn.Module, device: torch.device, where: str) -> None:
        self._block, self._device, self._where = block, device, where
        self._forward = block.forward
        self._norms = [each for each in block.modules() if isinstance(each, _BatchNorm)]

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **named)
        before = self._versions()
        result = checkpoint(
            partial(self._forward, **named), *args, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _Again(self, generators(self._device))),
        )  # fmt: skip
        if self._versions() != before:
            raise FitError(
                f"{self._where}: changes its buffers, which --gradient-checkpointing would do twice"
            )
        return result

    def _versions(self) -> list[tuple[int, int]]:
        """What changes with any buffer, except those of BatchNorm."""
        known = {id(buffer) for norm in self._norms for buffer in norm.buffers()}
        buffers = (it for it in self._block.buffers() if id(it) not in known)
        return [(id(buffer), buffer._version) for buffer in buffers]

    @contextmanager
    def as_before(self, states: Mapping[str, Any]) -> Iterator[None]:
        """The same random numbers, and running statistics that stay: copies follow the batch."""
        statistics = [(norm, *found) for norm in self._norms for found in norm.named_buffers()]
        with restored(self._device):
            restore(states, self._device)
            for norm, name, buffer in statistics:
                setattr(norm, name, buffer.clone())
            try:
                yield
            finally:
                for norm, name, buffer in statistics:
                    setattr(norm, name, buffer)


class _Again(AbstractContextManager[None]):
    """`as_before`, as often as the backward pass of one forward pass is run."""

    def __init__(self, recomputed: _Recomputed, states: Mapping[str, Any]) -> None:
        self._enter = partial(recomputed.as_before, states)
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self._entered.append(self._enter())
        self._entered[-1].__enter__()

    def __exit__(self, *failure: Any) -> bool | None:
        return self._entered.pop().__exit__(*failure)
