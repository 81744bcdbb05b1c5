"""What else in a folder names the parameters of a state_dict: optimizers, and copies of it.

Source: torch 2.13, `torch/distributed/checkpoint/state_dict.py`: the state of an optimizer is
``optimizer.state.fc.weight.exp_avg``; its groups are ``optimizer.param_groups.0.lr`` with a list of
names in ``optimizer.param_groups.0.params``, or flattened, ``optimizer.param_groups.fc.weight.lr``.
"""

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt.formats.pickle.keys import copied_keys
from ckpt.formats.pickle.nodes import Text

STATE, GROUPS = "state.", "param_groups."
_LIST = re.compile(r"param_groups\.\d+\.(params|param_names)")


@dataclass(frozen=True, slots=True)
class Follower:
    """A key of the folder that is made of one of a state_dict.

    Attributes:
        place: What it belongs to, for people: ``optimizer.state``.
        head: What comes before the key of the state_dict.
        key: That key.
        tail: What comes after it.
    """

    place: str
    head: str
    key: str
    tail: str

    def renamed(self, new: str) -> str:
        """The same with another key of the state_dict."""
        return self.head + new + self.tail

    def path(self, path: Sequence[object], new: str) -> list[str]:
        """The path in the nested state_dict likewise; a list's numbers become text."""
        old, after = f".{self.key}.", f".{new}."
        return [f".{part}.".replace(old, after, 1)[1:-1] for part in map(str, path)]


def optimizers_of(keys: Iterable[str]) -> tuple[str, ...]:
    """The prefixes of the optimizers of a folder, such as ``optimizer.``."""
    found: dict[str, None] = {}
    for key in keys:
        before, groups, _ = key.partition(GROUPS)
        if groups and (not before or before.endswith(".")):
            found[before] = None
    return tuple(found)


def parameters_of(keys: Iterable[str], optimizers: Sequence[str]) -> set[str]:
    """The parameters that the keys of optimizers name."""
    return {each.key for key in keys for each in named_by(key, optimizers)}


def named_by(key: str, optimizers: Sequence[str]) -> list[Follower]:
    """The parameter that a key of an optimizer names; none or one."""
    found = (next(_of_optimizer(key, it), None) for it in optimizers)
    return [each for each in found if each and not each.key.isdecimal()]  # the number of a group


def prefix_of(parameters: Collection[str], keys: Collection[str]) -> str | None:
    """The prefix of the first state_dict that has these parameters, such as ``model.``."""
    if not parameters:
        return None
    first = min(parameters)
    heads = (key.removesuffix(first) for key in keys if key.endswith(first))
    fitting = (head for head in heads if all(head + name in keys for name in parameters))
    return next(fitting, None)


def followers_of(
    keys: Iterable[str], optimizers: Sequence[str], own: Container[str]
) -> dict[str, Follower]:
    """The keys of a folder that are made of those of a state_dict.

    Args:
        keys: Of the folder, without those of the state_dict.
        optimizers: The prefixes of its optimizers.
        own: The keys of the state_dict.
    """
    copies: dict[str, list[str]] = {}
    found: dict[str, Follower] = {}
    for key in keys:
        prefix = next((prefix for prefix in optimizers if key.startswith(prefix)), None)
        if prefix is not None:
            follower = next((each for each in _of_optimizer(key, prefix) if each.key in own), None)
            if follower is not None:
                found[key] = follower
        else:
            top, _, rest = key.partition(".")
            copies.setdefault(top, []).append(rest)
    for top, names in copies.items():
        for name, (before, key) in copied_keys(names, own).items():
            tail = name.removeprefix(before + key)
            found[f"{top}.{name}"] = Follower(top, f"{top}.{before}", key, tail)
    return found


def _of_optimizer(key: str, prefix: str) -> Iterator[Follower]:
    """What a key may follow, the longest name first: fields have dots if they are nested."""
    for part in (STATE, GROUPS):
        head = prefix + part
        name, dot = (key, ".") if key.startswith(head) else ("", "")
        while dot:
            name, dot, _ = name.rpartition(".")
            if len(name) > len(head):
                yield Follower(head[:-1], head, name.removeprefix(head), key.removeprefix(name))


def is_list_of_names(key: str, optimizers: Sequence[str]) -> bool:
    """Whether the value of a key is the list of the parameters of an optimizer's group."""
    return any(key.startswith(it) and _LIST.fullmatch(key[len(it) :]) for it in optimizers)


def names_in(root: object, own: Mapping[str, str]) -> list[tuple[Text, str]]:
    """The names in such a list that change, each with its new one."""
    items = root if isinstance(root, list) else []
    return [(text, own[text]) for text in items if isinstance(text, Text) and text in own]
