"""Refactorings of a made-up model: what each does to a state_dict, and the rules that say so.

What a refactoring does is written with torch and string methods alone, so that the tests compare
the rules with something that is not ckpt.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

State = dict[str, torch.Tensor]
Rules = list[dict[str, Any]]


def model(depth: int, width: int) -> State:
    """The first form of the model, with values that all differ."""
    shapes: dict[str, tuple[int, ...]] = {
        "stem.conv.weight": (width, 3, 3, 3),
        "stem.norm.weight": (width,),
        "stem.norm.bias": (width,),
        "pre.attn.qkv.weight": (3 * width, width),
        "pre.attn.qkv.bias": (3 * width,),
        "pre.attn.out.weight": (width, width),
        "pre.mlp.fc1.weight": (2 * width, width),
        "pre.mlp.fc2.weight": (width, 2 * width),
        "head.fc.weight": (10, width),
        "head.fc.bias": (10,),
    }
    for block in range(depth):
        for key, shape in [*shapes.items()]:
            if key.startswith("pre."):
                shapes[f"blocks.{block}.{key[4:]}"] = shape
    made, start = {}, 0
    for key, shape in shapes.items():
        size = torch.Size(shape).numel()
        made[key] = torch.arange(start, start + size, dtype=torch.float32).reshape(shape)
        start += size
    return made


@dataclass(frozen=True)
class Refactoring:
    """A change of a class.

    Attributes:
        name: In words.
        apply: What it does to a state_dict.
        rules: What ckpt is told.
        renumbers: Whether only the class's `ckpt_schema` tells that it happened.
    """

    name: str
    apply: Callable[[State], State]
    rules: Rules = field(compare=False)
    renumbers: bool = False


def renamed_keys(change: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {change(key): value for key, value in state.items()}


def modules(state: State, top: str | None = None) -> list[tuple[str, ...]]:
    """The modules, with ``*`` for the numbers of blocks."""
    paths = {tuple(re.sub(r"^\d+$", "*", part) for part in key.split(".")[:-1]) for key in state}
    paths |= {path[:end] for path in paths for end in range(1, len(path))}
    return sorted(path for path in paths if path[-1] != "*" and top in (None, path[0]))


def pattern(path: Sequence[str]) -> str:
    return r"\.".join(r"\d+" if part == "*" else re.escape(part) for part in path)


def is_below(key: str, path: Sequence[str]) -> bool:
    parts = key.split(".")
    pairs = zip(parts, path, strict=False)
    return len(parts) > len(path) and all(b in ("*", a) and (b != "*" or a.isdigit())
                                          for a, b in pairs)  # fmt: skip


def rename_module(state: State, draw: random.Random, top: str | None = None) -> Refactoring | None:
    found = modules(state, top)
    path = draw.choice(found)
    new = draw.choice(["core", "body", "unit", "part", "cell", "gate"]) + draw.choice("abcdef")
    if any(other[: len(path)] == (*path[:-1], new) for other in modules(state)):
        return None

    def change(key: str) -> str:
        parts = key.split(".")
        if is_below(key, path):
            parts[len(path) - 1] = new
        return ".".join(parts)

    head = pattern(path[:-1]) + r"\." if len(path) > 1 else ""
    rule = rf"^({head}){re.escape(path[-1])}\.->\1{new}."
    return Refactoring(f"{'.'.join(path)} to {new}", renamed_keys(change), [{"rename": rule}])


def move_subtree(state: State, draw: random.Random, top: str | None = None) -> Refactoring | None:
    tops = sorted({key.split(".")[0] for key in state} if top is None else {top})
    old, new = draw.choice(tops), draw.choice("mnop") + str(draw.randrange(10, 99))
    if any(key.split(".")[0] == new + "x" for key in state):
        return None

    def change(key: str) -> str:
        return f"{new}x.{key}" if key.split(".")[0] == old else key

    rule = rf"^{old}\.->{new}x.{old}."
    return Refactoring(f"{old} into {new}x", renamed_keys(change), [{"rename": rule}])


def wrap(state: State, draw: random.Random) -> Refactoring | None:
    name = draw.choice(["network", "wrapped"])
    if any(key.startswith(f"{name}.") for key in state):
        return None
    return Refactoring(f"wrap in {name}", renamed_keys(lambda key: f"{name}.{key}"),
                       [{"add": f"{name}."}])  # fmt: skip


def unwrap(state: State, _draw: random.Random) -> Refactoring | None:
    tops = {key.split(".")[0] for key in state}
    if len(tops) > 1:
        return None
    (top,) = tops
    rest = [key.split(".", 1)[1] for key in state]
    if any(key.split(".")[0].isdigit() for key in rest):
        return None
    return Refactoring(f"out of {top}", renamed_keys(lambda key: key.split(".", 1)[1]),
                       [{"strip": f"{top}."}])  # fmt: skip


def split_linear(state: State, draw: random.Random, top: str | None = None) -> Refactoring | None:
    found = [
        path for path in modules(state, top)
        if all(value.shape[0] % 3 == 0 and value.shape[0] // 3 > 3 for key, value in state.items()
               if is_below(key, path)) and path[-1].startswith("qkv")
    ]  # fmt: skip
    if not found:
        return None
    path = draw.choice(found)
    names = ["q", "k", "v"]

    def apply(before: State) -> State:
        after: State = {}
        for key, value in before.items():
            if not is_below(key, path):
                after[key] = value
                continue
            parts = key.split(".")
            for name, part in zip(names, value.chunk(3), strict=True):
                parts[len(path) - 1] = name
                after[".".join(parts)] = part
        return after

    head = pattern(path[:-1]) + r"\." if len(path) > 1 else ""
    table = {"split": rf"^({head})qkv\.", "into": [rf"\1{name}." for name in names]}
    return Refactoring(f"split {'.'.join(path)}", apply, [table])


def leaves(state: State, path: Sequence[str]) -> frozenset[tuple[str, tuple[int, ...]]]:
    """What is below a module, with shapes; of all blocks."""
    return frozenset(
        (".".join([*key.split(".")[: len(path) - 1], *key.split(".")[len(path) :]]),
         tuple(value.shape))
        for key, value in state.items() if is_below(key, path)
    )  # fmt: skip


def join_linear(state: State, draw: random.Random, top: str | None = None) -> Refactoring | None:
    known = set(modules(state, top))
    found = [
        path[:-1] for path in known
        if path[-1] == "q" and len({leaves(state, (*path[:-1], n)) for n in "qkv"}) == 1
    ]  # fmt: skip
    found.sort()
    if not found:
        return None
    path = draw.choice(found)

    def apply(before: State) -> State:
        after: State = {}
        for key, value in before.items():
            parts = key.split(".")
            if not is_below(key, path) or parts[len(path)] not in ("q", "k", "v"):
                after[key] = value
            elif parts[len(path)] == "q":
                three = [".".join([*parts[: len(path)], n, *parts[len(path) + 1 :]]) for n in "qkv"]
                parts[len(path)] = "qkv"
                after[".".join(parts)] = torch.cat([before[it] for it in three])
        return after

    head = pattern(path) + r"\." if path else ""
    table = {"concat": [rf"^({head}){name}\." for name in "qkv"], "into": r"\1qkv."}
    return Refactoring(f"join {'.'.join(path)}", apply, [table])


def transpose(state: State, draw: random.Random, top: str | None = None) -> Refactoring | None:
    """A weight the other way round, under another name so that its keys tell."""
    found = sorted({
        path for path in modules(state, top)
        for key, value in state.items()
        if is_below(key, path) and len(key.split(".")) == len(path) + 1
        and key.endswith(".weight") and value.ndim == 2
    })  # fmt: skip
    if not found:
        return None
    path = draw.choice(found)

    def apply(before: State) -> State:
        return {
            (key[: -len("weight")] + "kernel" if hit else key): (value.T if hit else value)
            for key, value in before.items()
            for hit in [is_below(key, (*path,)) and key.count(".") == len(path)
                        and key.endswith(".weight")]
        }  # fmt: skip

    rules = [
        {"transpose": rf"^{pattern(path)}\.weight$"},
        {"rename": rf"^({pattern(path)}\.)weight$->\1kernel"},
    ]
    return Refactoring(f"transpose {'.'.join(path)}", apply, rules)


def shift(state: State, _draw: random.Random) -> Refactoring | None:
    """A block before the others becomes the first of them."""
    tops = {key.split(".")[0] for key in state}
    if not {"pre", "blocks"} <= tops:
        return None
    mine, block = ({key.split(".", cut)[-1] for key in state if key.startswith(name)}
                   for name, cut in (("pre.", 1), ("blocks.0.", 2)))  # fmt: skip
    if mine != block:
        return None

    def change(key: str) -> str:
        if key.startswith("pre."):
            return "blocks.0." + key[4:]
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            return f"blocks.{int(number) + 1}.{rest}"
        return key

    rules = [{"rename": r"^blocks\.(\d+)\.->blocks.{1+1}."}, {"rename": r"^pre\.->blocks.0."}]
    return Refactoring("insert a block before", renamed_keys(change), rules)


def swap_meaning(state: State, _draw: random.Random, top: str | None = None) -> Refactoring | None:
    """Query and key change their places, and no key tells."""
    below = [key for key in state if top in (None, key.split(".")[0])]
    names = {key.split(".")[-2] for key in below if key.count(".")}
    if not {"q", "k"} <= names:
        return None
    swapped = {"q": "k", "k": "q"}

    def change(key: str) -> str:
        parts = key.split(".")
        if top in (None, parts[0]):
            parts[-2] = swapped.get(parts[-2], parts[-2])
        return ".".join(parts)

    head = "" if top is None else rf"^({top}\..*)"
    group = "" if top is None else r"\1"
    rule = {"at_once": [rf"{head}\.{a}\.->{group}.{b}." for a, b in ("qk", "kq")]}
    return Refactoring("query is key", renamed_keys(change), [rule], renumbers=True)


EVERYWHERE = (
    rename_module, rename_module, rename_module, move_subtree, wrap, unwrap, split_linear,
    join_linear, transpose, shift, swap_meaning,
)  # fmt: skip
IN_ONE_PART = (
    rename_module, split_linear, join_linear, transpose, move_subtree, swap_meaning, swap_meaning,
)  # fmt: skip
