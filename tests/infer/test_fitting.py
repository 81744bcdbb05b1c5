"""The options that are suggested to make a state_dict fit: short, and proved by applying them."""

import re
import shlex

import pytest

from ckpt.infer.find_rules import infer_rules
from ckpt.infer.fitting import Fitting, fitting
from ckpt.tensors import StateDict, TensorEntry

SHAPES = {
    **{"conv1.weight": (32, 1, 3, 3), "conv1.bias": (32,)},
    **{"conv2.weight": (64, 32, 3, 3), "conv2.bias": (64,)},
    **{"fc1.weight": (64, 9216), "fc1.bias": (64,), "fc2.weight": (10, 64), "fc2.bias": (10,)},
}


def of_keys(renamed: dict[str, str]) -> Fitting:
    """MNIST's network against one whose keys are other ones."""
    entries = [TensorEntry(key, "float32", shape) for key, shape in SHAPES.items()]
    wanted = [TensorEntry(renamed.get(key, key), "float32", shape) for key, shape in SHAPES.items()]
    return fitting(StateDict(entries), "net.py:Net", StateDict(wanted))


@pytest.mark.parametrize(
    ("renamed", "options"),
    [
        ({}, ()),
        ({key: key.replace("conv", "embed") for key in SHAPES}, ("--rule 'conv->embed'",)),
        ({key: key.replace("conv", "embded_") for key in SHAPES}, ("--rule 'conv->embded_'",)),
        ({key: f"net.{key}" for key in SHAPES}, ("--add net.",)),
        ({key: key.replace("fc1.", "hidden.") for key in SHAPES}, ("--rule 'fc1->hidden'",)),
    ],
    ids=["fits", "one word", "another spelling", "prefix added", "one module"],
)
def test_suggested_options_are_the_shortest(
    renamed: dict[str, str], options: tuple[str, ...]
) -> None:
    assert of_keys(renamed).options == options


@pytest.mark.parametrize(
    ("prefix", "option"),
    [
        ("module.", "--unwrap"),
        ("_orig_mod.", "--unwrap"),
        ("module._orig_mod.", "--unwrap"),
        ("backbone.net.", "--strip backbone.net."),
    ],
)
def test_wrapper_is_suggested_to_be_cut_off(prefix: str, option: str) -> None:
    entries = [TensorEntry(prefix + key, "float32", shape) for key, shape in SHAPES.items()]
    wanted = [TensorEntry(key, "float32", shape) for key, shape in SHAPES.items()]
    assert fitting(StateDict(entries), "net.py:Net", StateDict(wanted)).options == (option,)


@pytest.mark.parametrize("mark", "()[]{}^$.*+?|\\ '\"#&-=")
def test_suggested_rule_takes_the_marks_of_a_key_literally(mark: str) -> None:
    mine = [TensorEntry(f"conv{mark}a.w", "float32", (3,)), TensorEntry("fc.w", "float32", (4,))]
    wanted = [TensorEntry("embed.w", "float32", (3,)), mine[1]]
    (option,) = fitting(StateDict(mine), "net.py:Net", StateDict(wanted)).options
    name, rule = shlex.split(option)
    old, _, new = rule.rpartition("->")
    assert (name, re.sub(old, new, mine[0].key)) == ("--rule", "embed.w")
    assert [rule.text for rule in infer_rules(mine, wanted)[1]] == [rule]
