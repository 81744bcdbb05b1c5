"""The state_dict in a pickle of `torch.save`: its tensors, their new names, and what is beside it.

The containers differ only in where they keep a storage's bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ckpt.errors import FormatError
from ckpt.formats.checkpoint import Pickled, expect_keys
from ckpt.formats.naming.rest import without
from ckpt.formats.optimizers import (
    Groups,
    OptimizerState,
    reordering,
    with_groups,
)
from ckpt.formats.pickle.edit import (
    Edit,
    item_edits,
    key_renames,
    module_renames,
    rename_texts,
)
from ckpt.formats.pickle.find import (
    EXTRA_STATE,
    Chosen,
    dotted,
)
from ckpt.formats.pickle.keys import copied_keys, filtered
from ckpt.formats.pickle.nodes import DictNode, Text
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import (
    metadata_of,
    texts_of,
)
from ckpt.formats.pickle.values import digest_of
from ckpt.tensors import Layout, Span, TensorEntry, tensor_spans

_MOST_HASHED = 1_000_000  # nodes of values that are compared


@dataclass(frozen=True, slots=True)
class TorchState:
    """A state_dict in a pickle.

    Attributes:
        entries: In the order of the pickle.
        others: The keys that hold no tensor, likewise.
        rest: Everything except the tensors of the state_dict, as valid JSON.
        beside: By path, other mappings and lists that may name its tensors: the other
            state_dicts of the file, an optimizer's state by name, its `param_names` or `params`,
            and lists and mappings of nothing but its keys, such as DeepSpeed's `param_shapes`.
        lists: Those of nothing but keys in their own form, by path.
        follows: Whether they follow a rename, which otherwise is limited to one state_dict.
        pickled: What the pickle names.
        chosen: The state_dict.
        outside: The other tensors of the file, by the identities of their nodes.
        strangers: The paths of other state_dicts that are not copies of it.
        holders: Every optimizer with its path.
        optimizers: Those that number their parameters.
        listed: Other tensors that are found by numbers, such as those of a list; by their path with
            ``*`` for every number.
        orders: By the path of an optimizer, the order that `renamed` gives to its groups.
        numbers: By name, the numbers that `renamed` gives to the root module in `_metadata`; None
            removes one.
    """

    entries: Sequence[TensorEntry]
    others: Sequence[str]
    rest: Mapping[str, Any]
    beside: Mapping[str, DictNode | list[object]]
    lists: Mapping[str, DictNode | list[object]]
    follows: bool
    pickled: Pickled
    chosen: Chosen
    outside: Mapping[int, TensorEntry]
    strangers: Sequence[str] = ()
    holders: Sequence[tuple[str, DictNode]] = ()
    optimizers: Sequence[OptimizerState] = ()
    listed: Mapping[str, Sequence[TensorEntry]] = field(default_factory=dict)
    orders: Mapping[str, Groups] = field(default_factory=dict)
    numbers: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def spans(self) -> Sequence[Span]:
        """The ranges of whole tensors, including those outside the state_dict."""
        return tensor_spans([*self.entries, *self.outside.values()])

    @property
    def digests(self) -> dict[str, str]:
        """Those of `others` whose whole value the pickle holds, by key."""
        items = self.chosen.mapping.items if self.chosen.mapping else ()
        others, budget = {*self.others}, [_MOST_HASHED]
        found = (
            (str(key), digest_of(value, budget))
            for key, value in items
            if isinstance(key, str) and key in others
        )
        return {key: digest for key, digest in found if digest is not None}

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """The paths in `beside` that name some of these keys and follow a rename."""
        return self._naming(keys) if self.follows else []

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        """The paths in `beside` that name some of these keys and do not follow a rename."""
        return [] if self.follows else self._naming(keys)

    @property
    def untouched(self) -> Mapping[str, Any]:
        """What a rename leaves of `rest` as it is."""
        at = self.chosen.path
        own = (key for key in self.others if "." in key or key == EXTRA_STATE)
        return without(self.rest, {"_metadata", *self.beside, *(dotted((*at, k)) for k in own)})

    def _naming(self, keys: Container[str]) -> list[str]:
        own = {entry.key for entry in self.entries}
        return [
            path
            for path, node in self.beside.items()
            if any(key in keys for _, key in copied_keys(_texts(node), own).values())
        ]

    @property
    def holds_more(self) -> bool:
        """Whether the file holds other things beside the tensors of the state_dict."""
        return self.chosen.mapping is not None and bool(self.pickled.path or self.others)

    def without(self, keys: Container[str], orders: Mapping[str, Groups]) -> dict[int, object]:
        """By identity, the nodes that change if these keys are dropped, each with its new form.

        Args:
            keys: Of tensors and others; what follows a rename loses them too.
            orders: By the path of an optimizer, the numbers that its groups keep.
        """
        instead: dict[int, object] = {}
        chosen = self.chosen.mapping
        if chosen is not None:
            instead[id(chosen)] = filtered(chosen, keys)
        own = {entry.key for entry in self.entries}
        numbered = {id(names) for each in self.optimizers for names in each.names}
        for path, node in self.beside.items() if self.follows else ():
            copied = copied_keys(_texts(node), own)
            gone = {str(text) for text, (_, key) in copied.items() if key in keys}
            if gone and id(node) not in numbered:
                held = self.lists.get(path, node)
                instead[id(held)] = filtered(held, gone)
        for path, node in self.holders:
            if path in orders:
                instead |= with_groups(node, orders[path])
        return instead

    def renamed(
        self, pickle: bytes, read: ParsedPickle, new_keys: Mapping[str, str], *, name: str
    ) -> bytes:
        """The pickle with other keys; the versions of modules follow them.

        Args:
            pickle: Its bytes.
            read: The same, parsed.
            new_keys: Old key to new key; keys that are not in it keep their name.
            name: Of the file, for messages.

        Raises:
            KeyCollisionError: Two keys would be the same; one of them may hold no tensor.
            FormatError: A key that changes is not text, or its new name is not valid.
        """
        keys = [*(entry.key for entry in self.entries), *self.others]
        full = {key: new_keys.get(key, key) for key in keys}
        changed = [old for old, new in full.items() if old != new]
        if not (changed or self.orders or self.numbers):
            return pickle
        mapping = self.chosen.mapping
        texts = {str(key) for key in texts_of(mapping)} if mapping else set[str]()
        fixed = [key for key in changed if key not in texts]
        if mapping is None or fixed:
            raise FormatError(
                f"{name}: {fixed[0]} is not a text key in this file, so it cannot be renamed",
                hint="-o FILE.safetensors writes the tensors alone, under any names",
            )
        # A key that was empty may stay empty.
        expect_keys(name, [new for old, new in full.items() if old or new])
        renames = key_renames(mapping, full)
        metadata = metadata_of(mapping)
        renames += module_renames(metadata, full) if metadata is not None else []
        moved = {each.path: each for each in self.optimizers if each.name in self.orders}
        own = {id(names) for each in moved.values() for names in each.names}
        for node in self.beside.values() if self.follows else ():
            if id(node) not in own:
                renames += _followed(node, full, name)
        for each in moved.values():
            renames += each.renamed(self.orders[each.name], full)
        edits = [*self._numbered(pickle, name)]
        if moved:
            orders = {path: self.orders[each.name] for path, each in moved.items()}
            edits += reordering(pickle, name, orders)
        return rename_texts(pickle, read, renames, edits)

    def _numbered(self, pickle: bytes, name: str) -> Iterator[Edit]:
        """The edits that give the root module of the state_dict and its copies their numbers."""
        try:
            for _, root in self.roots():
                yield from item_edits(pickle, root, self.numbers)
        except FormatError as error:
            hint = "-o FILE.safetensors  writes the tensors without versions of modules"
            raise FormatError(
                f"{name}: _metadata of the root module: {error}", hint=hint
            ) from error

    def roots(self) -> Iterator[tuple[DictNode, DictNode]]:
        """The `_metadata` of the state_dict and its copies, and their items of the root module."""
        copies = self.beside.values() if self.follows else ()
        for node in (self.chosen.mapping, *copies) if self.numbers else ():
            metadata = metadata_of(node) if isinstance(node, DictNode) else None
            for key, root in metadata.items if metadata is not None else ():
                if key == "" and isinstance(root, DictNode) and metadata is not None:
                    yield metadata, root


@dataclass(frozen=True, slots=True)
class TorchFile(ABC):
    """The part of a `ckpt.formats.checkpoint.Checkpoint` that the containers of torch share."""

    state: TorchState

    @property
    def entries(self) -> Sequence[TensorEntry]:
        return self.state.entries

    @property
    def rest(self) -> Mapping[str, Any]:
        return self.state.rest

    @property
    def aliases(self) -> Mapping[str, str]:
        return {}

    @property
    def others(self) -> Sequence[str]:
        return self.state.others

    @property
    def pickled(self) -> Pickled:
        return self.state.pickled

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        return self.state.also_named(keys)

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        return self.state.left_behind(keys)

    def untouched(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        return self.state.untouched

    def reordered(self, orders: Mapping[str, Groups]) -> Self:
        """The same, whose `renamed` also gives the groups of optimizers another order."""
        return replace(self, state=replace(self.state, orders=orders))

    def numbered(self, numbers: Mapping[str, int | None]) -> Self:
        """The same, whose root module has other numbers in `_metadata`."""
        versions = self.rest["_metadata"]
        root = {**versions[""], **numbers}
        versions = {**versions, "": {name: it for name, it in root.items() if it is not None}}
        rest = {**self.rest, "_metadata": versions}
        return replace(self, state=replace(self.state, numbers=numbers, rest=rest))

    @abstractmethod
    def storage_names(self) -> Collection[str]:
        """The names of the storages in the container."""

    @abstractmethod
    def plain(
        self,
        without: frozenset[int] = frozenset(),
        instead: Mapping[int, object] | None = None,
        more: Mapping[str, TensorEntry] | None = None,
    ) -> tuple[Layout, Sequence[str]]:
        """The same container without what torch's weights_only refuses, and what that was.

        The nodes with the identities `without` are left out too, those in `instead` replaced;
        `more` are new storages by their names.
        """


def _texts(beside: DictNode | list[object]) -> list[Text]:
    texts = texts_of(beside) if isinstance(beside, DictNode) else beside
    return [text for text in texts if isinstance(text, Text)]


def _followed(
    beside: DictNode | list[object], new_keys: Mapping[str, str], name: str
) -> list[tuple[Text, str]]:
    """The texts of `beside` and its module versions that change, each with its new text."""
    own = _texts(beside)
    copied = copied_keys(map(str, own), new_keys)
    new = {
        text: prefix + new_keys[key] + text.removeprefix(prefix + key)
        for text, (prefix, key) in copied.items()
    }
    expect_keys(name, [new.get(text, str(text)) for text in dict.fromkeys(own) if text])
    metadata = metadata_of(beside) if isinstance(beside, DictNode) else None
    modules = module_renames(metadata, new) if metadata is not None else []
    return [*((text, new[text]) for text in own if text in new), *modules]
