"""Everyday Python objects that training scripts save beside the weights."""

import argparse
import collections
import datetime
import enum
import pathlib
import sys
import types
import zoneinfo
from typing import Any

import numpy as np
import torch


class Phase(enum.Enum):
    TRAIN = 1


class Config:
    def __init__(self) -> None:
        self.lr = 0.1


def foreign(module: str, name: str) -> Any:
    """An object of a class of a package that is not installed."""
    kind = type(name, (), {"__module__": module})
    package, _, last = module.partition(".")
    sys.modules.setdefault(package, types.ModuleType(package))
    sys.modules.setdefault(module, types.ModuleType(module))
    setattr(sys.modules[package], last, sys.modules[module])
    vars(sys.modules[module]).setdefault(name, kind)
    return vars(sys.modules[module])[name]()


def omegaconf() -> Any:
    config = foreign("omegaconf.dictconfig", "DictConfig")
    metadata = foreign("omegaconf.base", "ContainerMetadata")
    config.__dict__.update(_metadata=metadata, _content={"lr": 0.1, "layers": [1, 2]})
    return config


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def objects() -> dict[str, Any]:
    """The objects, by name."""
    net = network()
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    utc, berlin = datetime.UTC, zoneinfo.ZoneInfo("Europe/Berlin")
    return {
        "np_scalar": np.float64(0.1),
        "np_array": np.arange(3.0),
        "np_rng": np.random.RandomState(0).get_state(),
        "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/data/run")),
        "simplenamespace": types.SimpleNamespace(lr=0.1),
        "posixpath": pathlib.PosixPath("/data/run"),
        "windowspath": pathlib.PureWindowsPath("C:/data/run"),
        "datetime_utc": datetime.datetime(2026, 1, 2, tzinfo=utc),
        "datetime_zone": datetime.datetime(2026, 1, 2, tzinfo=berlin),
        "timedelta": datetime.timedelta(hours=3),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "defaultdict_float": collections.defaultdict(float, a=1.0),
        "defaultdict_class": collections.defaultdict(Config, a=Config()),
        "counter": collections.Counter("aab"),
        "deque": collections.deque([0.1, 0.2], maxlen=5),
        "set": {1, 2},
        "frozenset": frozenset({1}),
        "complex": 1 + 2j,
        "bytes": b"abc",
        "slice": slice(0, 3),
        "range": range(3),
        "enum": Phase.TRAIN,
        "config_object": Config(),
        "omegaconf": omegaconf(),
        "scheduler_state": torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10).state_dict(),
        "lambda_state": torch.optim.lr_scheduler.LambdaLR(sgd, lambda e: 0.9**e).state_dict(),
        "torch_device": torch.device("cpu"),
        "torch_dtype": torch.float16,
        "torch_size": torch.Size([1, 2]),
        "generator": torch.get_rng_state(),
        "function": torch.nn.functional.relu,
        "builtin_function": print,
        "class": torch.nn.ReLU,
        "optimizer_object": torch.optim.SGD(net.parameters(), 0.1),
        "module_object": torch.nn.Linear(2, 2),
        "string_dtype": np.dtype("float32"),
        "np_str": np.str_("abc"),
        "np_bool": np.bool_(True),
        "np_object_array": np.array(["a", None], dtype=object),
        "loss_module": torch.nn.CrossEntropyLoss(),
        "many": [Config(), Phase.TRAIN, omegaconf(), types.SimpleNamespace(x=1), {"lr": 0.1}],
    }


def checkpoint(value: object) -> dict[str, Any]:
    """A training checkpoint with one of them."""
    state = network().state_dict()
    return {"state_dict": state, "epoch": 3, "hyper_parameters": {"x": value, "y": [value, 1]}}
