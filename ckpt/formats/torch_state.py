"""A pickle of `torch.save` as a state_dict: which one, its tensors, and all that is beside it.

The containers differ in where a storage's bytes are; what the pickle says is the same.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.errors import FormatError
from ckpt.formats.checkpoint import expect_keys
from ckpt.formats.pickle.describe import SHOWN_ITEMS, describe, free_name, is_tensor
from ckpt.formats.pickle.edit import key_renames, module_renames, rename_texts
from ckpt.formats.pickle.find import ALL, Chosen, Contents, choose, dotted, find
from ckpt.formats.pickle.nodes import DictNode, ListNode, Text
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import FindStorage, entries_of, entry_of, metadata_of, texts_of
from ckpt.tensors import Span, TensorEntry, tensor_spans

_STEPS = 3  # an opcode; what is not shared takes two at most


@dataclass(frozen=True, slots=True)
class TorchState:
    """A state_dict in a pickle.

    Attributes:
        entries: In the order of the pickle.
        rest: What is no tensor of the state_dict, fit for JSON.
        beside: By their paths, mappings and lists that may name its tensors as well: the other
            state_dicts of the file, an optimizer's state by name, its `param_names` or `params`.
            They follow a rename, if it was not limited to one state_dict.
    """

    entries: Sequence[TensorEntry]
    rest: Mapping[str, Any]
    beside: Mapping[str, DictNode | ListNode]
    _chosen: Chosen
    _others: Sequence[TensorEntry]

    @property
    def spans(self) -> Sequence[Span]:
        """Where whole tensors lie, those beside the state_dict included."""
        return tensor_spans([*self.entries, *self._others])

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """Where else some of these keys stand, and follow."""
        return [
            path for path, each in self.beside.items() if any(text in keys for text in _texts(each))
        ]

    def renamed(
        self, pickle: bytes, read: ParsedPickle, new_keys: Mapping[str, str], *, name: str
    ) -> bytes:
        """The pickle with other keys; the versions of modules move along.

        Args:
            pickle: Its bytes.
            read: What they were read as.
            new_keys: Old key to new key; keys that are not in it keep their name.
            name: What to call the file in messages.

        Raises:
            KeyCollisionError: Two keys, of which one may hold no tensor, would be the same.
            FormatError: A key that changes is no text, or no longer would be.
        """
        full = {entry.key: new_keys.get(entry.key, entry.key) for entry in self.entries}
        changed = [old for old, new in full.items() if old != new]
        if not changed:
            return pickle
        mapping = self._chosen.mapping
        texts = {str(key) for key in texts_of(mapping)} if mapping else set[str]()
        for key in changed:
            if key not in texts:
                raise FormatError(
                    f"{name}: {key} is no text in this file, and keeps its name",
                    hint="-o FILE.safetensors writes the tensors alone, under any name",
                )
        assert mapping is not None  # it has the texts
        # One that was empty may stay so.
        keys = [new for old, new in full.items() if old or new]
        expect_keys(name, [*keys, *(texts - full.keys())])
        renames = key_renames(mapping, full)
        for each in (mapping, *self.beside.values()):
            metadata = metadata_of(each) if isinstance(each, DictNode) else None
            if metadata is not None:
                renames += module_renames(metadata, full)
        for each in self.beside.values():
            renames += _followed(each, full, name)
        return rename_texts(pickle, read, renames)


def read_state(
    read: ParsedPickle, find_storage: FindStorage, *, name: str, where: str, inside: str | None
) -> TorchState:
    """The state_dict that is meant, and the rest.

    Args:
        read: The pickle.
        find_storage: Where a storage's bytes are.
        name: What to call the file in messages.
        where: What to call the pickle.
        inside: As after ``FILE::``.

    Raises:
        FormatError: There is no telling which is meant, or a tensor is not well-formed.
    """
    contents = find(read.root, name=where, step_limit=_STEPS * read.opcodes + 1000)
    chosen = choose(contents, inside, name=name)
    entries = entries_of(chosen.tensors, find_storage, name=name)
    inside_it = {id(tensor) for _, tensor in chosen.tensors}
    others = [
        entry_of(dotted(at), tensor, find_storage, name=name)
        for at, tensor in contents.tensors
        if id(tensor) not in inside_it
    ]
    return TorchState(
        entries=entries,
        rest=_rest(read.root, chosen),
        beside=dict(_beside_it(contents, chosen)) if inside in (None, ALL) else {},
        _chosen=chosen,
        _others=others,
    )


def _beside_it(contents: Contents, chosen: Chosen) -> Iterator[tuple[str, DictNode | ListNode]]:
    """What else in the file may name the tensors of the state_dict, and where it stands."""
    for path, mapping, _ in contents.state_dicts:
        if mapping is not chosen.mapping:
            yield dotted(path), mapping
    for at, optimizer in contents.optimizers:
        fields = {str(key): value for key, value in optimizer.items}
        if isinstance(fields["state"], DictNode):
            yield dotted((*at, "state")), fields["state"]
        groups = fields["param_groups"]
        for number, group in enumerate(groups.items if isinstance(groups, ListNode) else ()):
            for key, value in group.items if isinstance(group, DictNode) else ():
                if key in ("param_names", "params") and isinstance(value, ListNode):
                    yield dotted((*at, "param_groups", number, key)), value


def _texts(beside: DictNode | ListNode) -> list[Text]:
    texts = texts_of(beside) if isinstance(beside, DictNode) else beside.items
    return [text for text in texts if isinstance(text, Text)]


def _followed(
    beside: DictNode | ListNode, new_keys: Mapping[str, str], name: str
) -> list[tuple[Text, str]]:
    """What changes in something that names the tensors as well."""
    own = _texts(beside)
    expect_keys(name, [new_keys.get(text, str(text)) for text in own if text])
    return [(text, new_keys[text]) for text in own if text in new_keys]


def _rest(root: object, chosen: Chosen) -> dict[str, Any]:
    """What is beside the tensors of the state_dict, and its module versions whole."""
    rest = _beside(root, chosen.path, chosen.mapping, [SHOWN_ITEMS])
    metadata = metadata_of(chosen.mapping) if chosen.mapping else None
    if metadata is not None:
        rest["_metadata"] = describe(metadata, [len(metadata.items) * 10 + 10])
    return rest


def _beside(
    node: object, path: Sequence[str], chosen: DictNode | None, budget: list[int]
) -> dict[str, Any]:
    """What stands along the path to the chosen state_dict; the path is bounded in length."""
    shown: dict[str, Any] = {}
    for key, value in node.items if isinstance(node, DictNode) else ():
        if path and key == path[0]:
            inner = _beside(value, path[1:], chosen, budget)
            if inner:
                shown[free_name(key, shown)] = inner
        elif not (node is chosen and is_tensor(value)):
            shown[free_name(key, shown)] = describe(value, budget)
            if budget[0] < 0:
                break
    return shown
