"""The types that callers see; mypy checks them, nothing runs them."""

from collections import OrderedDict
from typing import assert_type

import torch
from torch import nn

import ckpt
from ckpt.ops.diff import RefDiff
from ckpt.ops.load import LazyStateDict
from ckpt.ops.rename import Renamed, RenamePlan
from ckpt.ops.show import Shown
from ckpt.registry.adding import Added
from ckpt.registry.version import Version
from ckpt.writing.written import Written

State = OrderedDict[str, torch.Tensor]


def of_weights(net: nn.Module, state: State, plain: dict[str, torch.Tensor]) -> None:
    assert_type(ckpt.diff(state, net), RefDiff)
    assert_type(ckpt.diff("v1", nn.Linear), RefDiff)
    assert_type(ckpt.rename(state, ["a->b"]), State)
    assert_type(ckpt.rename(plain, {"a": "b"}, check=net), dict[str, torch.Tensor])
    assert_type(ckpt.rename(net, "a->b", to=lambda: nn.Linear(1, 2)), State)
    assert_type(ckpt.rename("old.pt", [{"split": "a", "into": ["b", "c"]}]), Renamed)
    assert_type(ckpt.plan_rename(net, ["a->b"]), RenamePlan)
    assert_type(ckpt.register(net, metrics={"accuracy": 0.9}, registry="models"), Added)
    assert_type(ckpt.load("net@prod", keys="^fc", device="cuda:0"), State)
    assert_type(ckpt.load(ckpt.register(state, name="net")), State)
    assert_type(ckpt.open(state), LazyStateDict)
    assert_type(ckpt.show(net), Shown)
    assert_type(ckpt.export(net, "net.safetensors"), Written)


def of_a_registry(net: nn.Module) -> None:
    registry = ckpt.Registry("models")
    assert_type(registry.models, list[str])
    assert_type(registry.versions("net"), list[Version])
    assert_type(registry.ls(where=["accuracy>0.9"]), list[Version])
    assert_type(registry.register(net, name="net"), Added)
    assert_type(registry.load("net@prod"), State)
    assert_type(registry.diff("net@prod", net), RefDiff)
