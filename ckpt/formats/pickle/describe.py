"""Nodes for people: bounded in depth, items and length, and valid JSON."""

from collections.abc import Collection
from math import isfinite
from typing import TypeGuard

from ckpt.errors import excerpt
from ckpt.formats.pickle.globals import OTHER_TENSORS, TENSORS
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque, Persistent
from ckpt.formats.pickle.values import bytes_of, value_of

SHOWN_ITEMS = 1000  # of the non-tensor part; the file itself keeps all
_SHOWN_CHARACTERS = 1000  # of one text
_SHOWN_DEPTH = 8
_COLLECTIONS = {"torch.Size", "builtins.set", "builtins.frozenset"}

# What trainers save beside a model, by the keys that tell. Source: torch 2.13, the `state_dict` of
# `torch.optim.Optimizer`, `torch.optim.lr_scheduler.LRScheduler` and `torch.amp.GradScaler`;
# transformers' `Trainer._save_rng_state`.
_KINDS = (
    ({"state", "param_groups"}, "the state of an optimizer"),
    ({"last_epoch", "_last_lr"}, "the state of a learning rate scheduler"),
    ({"scale", "growth_factor", "backoff_factor"}, "the state of a GradScaler"),
    ({"python", "numpy", "cpu"}, "the states of random generators"),
)
_GENERATORS = {(5056,), (16,)}  # bytes that `get_rng_state` gives for the CPU and for CUDA

WEIGHTS_HINT = "name the file that holds the weights"

A_TENSOR = "a tensor"  # the description of one


def is_tensor(node: object) -> TypeGuard[Call]:
    """Whether the node is the description of a tensor."""
    return isinstance(node, Call) and node.function in TENSORS


def describe(node: object, budget: list[int] | None = None, depth: int = 0) -> object:
    """The content of a node, for JSON; everything but plain values is only named.

    Args:
        node: May be shared, deep or in a circle.
        budget: How many more nodes may be shown; counted down, and shared by the nodes of
            one description.
        depth: Of `node`.
    """
    budget = [SHOWN_ITEMS] if budget is None else budget
    budget[0] -= 1
    if budget[0] < 0 or depth > _SHOWN_DEPTH:
        return "…"
    if isinstance(node, Call):
        node = value_of(node)
    match node:
        case DictNode():
            shown: dict[str, object] = {}
            for key, value in node.items[: budget[0] + 1]:
                shown[free_name(key, shown)] = describe(value, budget, depth + 1)
            return shown
        case list() | tuple():
            return [describe(item, budget, depth + 1) for item in node[: budget[0] + 1]]
        case Call(function=function, arguments=((list() | tuple()) as items,)) if (
            function in _COLLECTIONS
        ):
            return describe(items, budget, depth)
        case float() if not isfinite(node):
            return str(node)
        case None | bool() | int() | float():
            return node
        case str():
            return _text(node)
    return brief(node)


def free_name(key: object, taken: dict[str, object]) -> str:
    """The text of a key, with its type if another key has the same text (`1` and ``"1"``)."""
    text = _text(key) if isinstance(key, str) else brief(key)
    while text in taken:
        text += f" ({'text' if isinstance(key, str) else type(key).__name__.lower()})"
    return text


def brief(node: object) -> str:
    """A few words for one node."""
    match node:
        case Call() if is_tensor(node):
            return OTHER_TENSORS.get(node.function, A_TENSOR)
        case Call() if (data := bytes_of(node)) is not None:
            return f"{len(data):,} bytes"
        case Call() if len(node.arguments) <= 3 and _plain(node.arguments):
            return f"{node.function}({', '.join(map(brief, node.arguments))})"
        case Call():
            return f"{node.function}(…)"
        case Global():
            return node.name
        case Opaque():
            made = node.given or node.state is not None
            return f"{_text(node.name)}{'(…)' if made else ''}"
        case bytes():
            return f"{len(node):,} bytes"
        case tuple() if len(node) <= 3 and _plain(node):
            return f"({', '.join(map(brief, node))})"
        case list() | tuple():
            return f"a {type(node).__name__}"
        case DictNode() | Persistent():
            return "a dict" if isinstance(node, DictNode) else "a storage"
        case str():
            return repr(_text(node))
    return repr(node)


def _plain(items: tuple[object, ...]) -> bool:
    return not any(
        isinstance(item, list | tuple | DictNode | Call | Persistent | Opaque) for item in items
    )


def _text(text: str) -> str:
    """A long text is shortened; half a surrogate pair, which no file can hold, is escaped."""
    return str(excerpt(text, _SHOWN_CHARACTERS)).encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(keys: Collection[str]) -> str | None:
    """What a file holds instead of a model, by the keys of its root; None if they do not tell."""
    known = {*keys}
    return next((what for wanted, what in _KINDS if wanted <= known), None)


def root_kind(root: object) -> str | None:
    """What a pickle holds instead of a model, if that can be told."""
    match root:
        case DictNode():
            return kind_of([key for key, _ in root.items if isinstance(key, str)])
        case Call(
            arguments=(Persistent(id=(_, Global("torch.ByteStorage"), *_)), _, tuple() as shape, *_)
        ) if shape in _GENERATORS:
            return "the state of a random generator"
    return None
