"""Random networks, from a seed: the definitions of `test_fits`, imported by path."""

import random

import torch
from torch import nn


class Frozen(nn.Module):
    """BatchNorm with fixed numbers, which takes files that count batches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(width))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Renaming(nn.Module):
    """Renames its old keys itself; from version 2 on it does not look for them."""

    _version = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width)
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state_dict, prefix, metadata, *_):
        if metadata.get("version", 1) < 2 and prefix + "conv.weight" in state_dict:
            for leaf in ("weight", "bias"):
                state_dict[prefix + "embed." + leaf] = state_dict.pop(prefix + "conv." + leaf)


class Extra(nn.Linear):
    """Has state that is not a tensor."""

    def get_extra_state(self):
        return {"scale": 2.0, "history": [1, 2]}

    def set_extra_state(self, state):
        self.scale = None if state is None else state["scale"]


class Forgiving(nn.Linear):
    """Accepts files without its bias."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)
        self.register_load_state_dict_post_hook(self._forgive)

    @staticmethod
    def _forgive(_module, incompatible):
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys if not key.endswith("bias")
        ]


class Demanding(nn.Linear):
    """Needs one key in every file, and fails without it."""

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict.pop(prefix + "unit")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Scaled(nn.Module):
    """Has a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


KINDS = {
    "linear": lambda width: nn.Linear(width, width),
    "conv": lambda width: nn.Conv1d(width, width, 3, bias=False),
    "norm": lambda width: nn.BatchNorm1d(width),
    "sync": lambda width: nn.SyncBatchNorm(width),
    "plain_norm": lambda width: nn.BatchNorm1d(width, track_running_stats=False),
    "layer_norm": lambda width: nn.LayerNorm(width),
    "embedding": lambda width: nn.Embedding(5, width),
    "frozen": Frozen,
    "renaming": Renaming,
    "extra": lambda width: Extra(width, width),
    "forgiving": lambda width: Forgiving(width, width),
    "demanding": lambda width: Demanding(width, width),
    "scaled": lambda _width: Scaled(),
    "lstm": lambda width: nn.LSTM(width, width),
    "attention": lambda width: nn.MultiheadAttention(width, 1),
    "weight_norm": lambda width: nn.utils.parametrizations.weight_norm(nn.Linear(width, width)),
}


def build(seed: int) -> nn.Module:
    draw = random.Random(seed)
    return nn.ModuleDict({f"m{at}": _node(draw, 0) for at in range(draw.randint(1, 3))})


def _node(draw: random.Random, depth: int) -> nn.Module:
    if depth < 2 and draw.random() < 0.3:
        return nn.Sequential(*(_node(draw, depth + 1) for _ in range(draw.randint(1, 3))))
    return KINDS[draw.choice(sorted(KINDS))](draw.choice((2, 3)))
