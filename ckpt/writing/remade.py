"""A file of torch in which operations make tensors: all else is kept, and its companions follow.

Copies of the state_dict get the same operations, optimizers the state of their new parameters, and
`_metadata` the modules. Law: what is not touched keeps its value and its place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import PlanError
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.naming.modules import moved_modules
from ckpt.formats.opaque import OpaqueWord, expect_harmless, torch_file, unopened
from ckpt.formats.optimizers import HeldOptimizer, held_optimizers, with_parameters
from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.keys import copied_keys, shown_keys
from ckpt.formats.pickle.nodes import Call, DictNode
from ckpt.formats.pickle.tensors import metadata_of, texts_of
from ckpt.formats.pickle.writer import location_of, tensor_node
from ckpt.formats.stream import write_layout
from ckpt.formats.torch_state import TorchFile
from ckpt.io.files import expect_room, write_whole
from ckpt.io.sources import ByteSource
from ckpt.rules.expressions import Expression, Source, sources_of, whole_source
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Planned
from ckpt.tensors import Layout, TensorEntry
from ckpt.writing.checkpoint import Remaking, reader_back
from ckpt.writing.derived import Derived
from ckpt.writing.moments import MadeTensor, Places, RegroupedOptimizer, state_after
from ckpt.writing.written import Written


@dataclass(frozen=True, slots=True)
class Remade(Remaking):
    """The new file, before it is written.

    Attributes:
        checkpoint: The old one.
        source: What the layout is read from.
        layout: Of the new file.
        entries: Of its state_dict.
        made: The tensors with bytes of their own, those beside the state_dict included.
        also: Other places in the file that follow.
    """

    checkpoint: Checkpoint
    source: ByteSource
    layout: Layout
    entries: Sequence[TensorEntry]
    made: Sequence[TensorEntry]
    also: tuple[str, ...]
    _checked: CheckedSource
    _used: Sequence[TensorEntry]

    def write(
        self,
        path: Path,
        *,
        inside: str | None,
        replace_out: bool,
        in_place: bool,
        opaque: OpaqueWord | None,
    ) -> Written:
        """Write it, and read it back before it appears; see `write_checkpoint`."""
        expect_harmless(self.checkpoint, opaque)
        expect_room(path.parent, sum(entry.nbytes for entry in self.made))
        with write_whole(
            path,
            replace=replace_out,
            check=reader_back(path, self.entries, inside),
            rights=self.checkpoint.source.rights,
            in_place=in_place,
        ) as out:
            write_layout(self.layout, self.source, out)
            self._checked.finish(self._used)
        pickled = self.checkpoint.pickled
        chosen = inside or (pickled.chosen if pickled else None)
        return Written(
            path,
            path.stat().st_size,
            inside=inside,
            also_named=self.also,
            unopened=unopened(self.checkpoint),
            chosen=chosen,
        )


def remade(checkpoint: Checkpoint, plan: Plan, optimizers: Iterable[RegroupedOptimizer]) -> Remade:
    """Work out the file that a plan makes.

    Args:
        checkpoint: A file of torch.
        plan: The plan.
        optimizers: The new parameters of its optimizers.

    Raises:
        PlanError: A copy or an optimizer cannot follow, something that cannot names what is made,
            or the file has objects that cannot be written again.
    """
    file = torch_file(checkpoint)
    assert file is not None
    making = _Making(checkpoint, file, plan)
    making.state_dict()
    making.numbers(file.state.numbers)
    known = {held.path: held for held in held_optimizers(file.state.holders, file.state.beside)}
    for after in optimizers:
        making.optimizer(known[after.path], after)
    own = making.of_optimizers(known.values())
    for path, node in file.state.beside.items() if file.state.follows else ():
        if id(node) not in own:
            making.beside(path, node)
    layout, changed = file.plain(instead=making.instead, more=making.storages)
    if changed:
        raise PlanError(
            f"{checkpoint.source.name}: tensors cannot be made beside {changed[0]}",
            hint="--drop-opaque  leaves that out as well\n"
            "-o NEW.safetensors  writes the tensors alone",
        )
    return Remade(
        checkpoint,
        making.derived.source,
        layout,
        making.entries,
        list(making.storages.values()),
        tuple(making.also),
        making.checked,
        making.used,
    )


@dataclass(frozen=True, slots=True)
class RemadeOptimizers:
    """A file with nothing but optimizers, before it is written.

    Attributes:
        source: What the layout is read from.
        layout: Of the new file.
        changed: What it leaves out.
    """

    source: ByteSource
    layout: Layout
    changed: Sequence[str]
    _checked: CheckedSource
    _used: Sequence[TensorEntry]

    def finish(self) -> None:
        """Check what the new tensors are made of; to be called after the layout was written."""
        self._checked.finish(self._used)


def remade_optimizers(
    checkpoint: Checkpoint,
    plan: Plan,
    optimizers: Iterable[RegroupedOptimizer],
    instead: Mapping[int, object],
) -> RemadeOptimizers:
    """Work out such a file after a plan for the weights that its optimizers train.

    Args:
        checkpoint: The old file.
        plan: The plan.
        optimizers: The new parameters of those that get others.
        instead: Other nodes that change, by identity.
    """
    file = torch_file(checkpoint)
    assert file is not None
    making = _Making(checkpoint, file, plan)
    known = {held.path: held for held in held_optimizers(file.state.holders, file.state.beside)}
    for after in optimizers:
        making.optimizer(known[after.path], after)
    layout, changed = file.plain(instead={**instead, **making.instead}, more=making.storages)
    source = making.derived.source
    return RemadeOptimizers(source, layout, changed, making.checked, making.used)


class _Making:
    """Collects the nodes that change and the storages that are new.

    Attributes:
        instead: By identity, each node that changes, with its new form.
        storages: The new storages by their names.
        entries: Of the new state_dict.
        also: The paths of what follows.
        used: What the new storages are made of.
    """

    def __init__(self, checkpoint: Checkpoint, file: TorchFile, plan: Plan) -> None:
        self.instead: dict[int, object] = {}
        self.storages: dict[str, TensorEntry] = {}
        self.entries: list[TensorEntry] = []
        self.also: list[str] = []
        self.used: list[TensorEntry] = []
        self._checkpoint, self._file, self._plan = checkpoint, file, plan
        source = checkpoint.source
        self._places = Places.of_file(source, file.state)
        self.checked = CheckedSource(source, checkpoint.checksums, file.entries)
        self.derived = Derived(self.checked, self._places.entries)
        taken = [int(name) for name in file.storage_names() if name.isdecimal()]
        self._next = max(taken, default=-1) + 1
        self._nodes: dict[object, Call] = {}  # tied tensors stay tied

    def state_dict(self) -> None:
        """Replace the state_dict, whose other keys keep their places as far as they have one."""
        chosen = self._file.state.chosen
        assert chosen.mapping is not None
        tensors = dict(chosen.tensors)
        waiting: dict[str | None, list[tuple[object, object]]] = {}
        before: str | None = None
        for key, (text, value) in zip(_keys(chosen.mapping), chosen.mapping.items, strict=True):
            if key in tensors:
                before = key
            elif key is None or not self._plan.drops(key):
                name = self._plan.aliases.get(key or "")
                waiting.setdefault(before, []).append((text if name is None else name, value))
        items = waiting.pop(None, [])
        for tensor in self._plan.tensors:
            self.entries.append(self.derived.entry(tensor.key, tensor.made_of))
            items.append((tensor.key, self._tensor(tensor.made_of, tensors)))
            for old in sources_of(tensor.made_of):
                items += waiting.pop(old, [])
        items += (item for left in waiting.values() for item in left)
        self._replace(chosen.mapping, items, {**self._kept(), **self._plan.aliases})

    def optimizer(self, held: HeldOptimizer, after: RegroupedOptimizer) -> None:
        """Replace the state and the groups of an optimizer."""
        tensors = {tensor.key: tensor.made_of for tensor in self._plan.tensors}
        state = {
            key: {name: self._made(value) for name, value in fields.items()}
            for key, fields in state_after(held, after, tensors, self._places).items()
        }
        self.instead |= with_parameters(held, after.groups, state, after.called)
        if not held.is_numbered:
            self.also.append(held.path)

    def of_optimizers(self, known: Iterable[HeldOptimizer]) -> set[int]:
        """The identities of the nodes that belong to optimizers."""
        own = {id(held.node) for held in known}
        for _, node in self._file.state.holders:
            fields = {str(key): value for key, value in node.items}
            own.add(id(fields["state"]))
            groups = fields["param_groups"]
            for group in groups if isinstance(groups, list) else ():
                if isinstance(group, DictNode):
                    own |= {id(value) for _, value in group.items}
        return own

    def beside(self, path: str, node: DictNode | list[object]) -> None:
        """Let a copy of the state_dict, or a list of its keys, follow.

        Raises:
            PlanError: It cannot.
        """
        texts = list(texts_of(node) if isinstance(node, DictNode) else node)
        keys = {entry.key for entry in self._file.entries} | set(self._plan.aliases)
        copied = copied_keys((str(text) for text in texts if isinstance(text, str)), keys)
        if not any(self._changes(key) for _, key in copied.values()):
            return
        if isinstance(node, DictNode) and any(is_tensor(it) for _, it in node.items):
            self._copy(path, node, copied)
        else:
            self._names(path, self._file.state.lists.get(path, node), copied)
        self.also.append(path)

    def _names(
        self, path: str, node: DictNode | list[object], copied: Mapping[str, tuple[str, str]]
    ) -> None:
        """Rename and drop the keys that a list or mapping names."""
        kept = {**self._plan.new_keys, **self._plan.aliases}
        gone = {it.key for it in self._plan.dropped}
        for _, key in copied.values():
            if key not in kept and key not in gone and not self._plan.drops(key):
                raise PlanError(
                    f"{self._checkpoint.source.name}: {path} names {key}, and cannot follow",
                    hint="-o NEW.safetensors  writes the tensors alone",
                )

        def new(text: object) -> object:
            before, key = copied.get(text, ("", "")) if isinstance(text, str) else ("", "")
            return before + kept[key] if key in kept else text

        def stays(*texts: object) -> bool:
            found = (copied[it][1] for it in texts if isinstance(it, str) and it in copied)
            return all(key in kept for key in found)

        if isinstance(node, DictNode):
            items = [(new(key), new(value)) for key, value in node.items if stays(key, value)]
            self.instead[id(node)] = DictNode(items, node.ordered, node.state)
        else:
            self.instead[id(node)] = [new(it) for it in node if stays(it)]

    def _changes(self, key: str) -> bool:
        return self._plan.new_keys.get(key, self._plan.aliases.get(key)) != key

    def _copy(self, path: str, node: DictNode, copied: Mapping[str, tuple[str, str]]) -> None:
        values = {str(text): value for text, value in node.items if isinstance(text, str)}
        tensors = {key: it for text, (_, key) in copied.items() if is_tensor(it := values[text])}
        prefix = {key: before for before, key in copied.values()}
        made: dict[str, list[tuple[object, object]]] = {}
        for tensor in self._plan.tensors:
            sources = list(dict.fromkeys(sources_of(tensor.made_of)))
            if any(key in tensors for key in sources):
                name = prefix[next(key for key in sources if key in tensors)] + tensor.key
                value = self._copied_tensor(path, tensor, tensors)
                made.setdefault(sources[0], []).append((name, value))
        items: list[tuple[object, object]] = []
        for text, value in node.items:
            before, key = copied.get(text, ("", "")) if isinstance(text, str) else ("", "")
            if key in tensors:
                items += made.get(key, [])
            elif not key:
                items.append((text, value))
            elif not self._plan.drops(key):
                items.append((before + self._plan.aliases.get(key, key), value))
        kept = self._kept()
        self._replace(node, items, {p + it: p + kept[it] for it, p in prefix.items() if it in kept})

    def _copied_tensor(self, path: str, tensor: Planned, tensors: Mapping[str, Call]) -> object:
        sources = list(dict.fromkeys(sources_of(tensor.made_of)))
        try:
            for key in sources:
                if key not in tensors:
                    raise PlanError(f"it lacks {key}")
            if isinstance(tensor.made_of, Source):
                return tensors[sources[0]]
            return self._made(self._places.made(tensor.made_of, tensors))
        except PlanError as error:
            name = self._checkpoint.source.name
            raise PlanError(f"{name}: {path} cannot follow to {tensor.key}: {error}") from error

    def _kept(self) -> dict[str, str]:
        """Old key to new key of the tensors that are kept whole."""
        tensors = self._plan.tensors
        return {old: it.key for it in tensors if (old := whole_source(it.made_of)) is not None}

    def _replace(
        self, node: DictNode, items: list[tuple[object, object]], kept: Mapping[str, str]
    ) -> None:
        """Give a mapping other items, and its `_metadata` the modules of those that are kept."""
        self.instead[id(node)] = DictNode(items, node.ordered, node.state)
        metadata = metadata_of(node)
        if metadata is not None:
            moved = moved_modules([str(text) for text in texts_of(metadata)], kept)
            modules = [
                (moved[str(text)] if isinstance(text, str) else text, value)
                for text, value in metadata.items
            ]
            self.instead[id(metadata)] = DictNode(modules, metadata.ordered, metadata.state)

    def numbers(self, new: Mapping[str, int | None]) -> None:
        """Give the root module of the state_dict and its copies other numbers."""
        for _, root in self._file.state.roots():
            kept = [(key, value) for key, value in root.items if key not in new]
            items = [*kept, *((key, value) for key, value in new.items() if value is not None)]
            self.instead[id(root)] = DictNode(items, root.ordered, root.state)

    def _tensor(self, made_of: Expression, tensors: Mapping[str, Call]) -> object:
        if isinstance(made_of, Source):
            return tensors[made_of.key]
        key = next(sources_of(made_of), None)
        return self._made(MadeTensor(made_of, location_of(tensors[key]) if key else "cpu"))

    def _made(self, value: object) -> object:
        """The node of a value, with a storage of its own if that is made."""
        if not isinstance(value, MadeTensor):
            return value
        entry = self.derived.entry("", value.made_of)
        self.used += (self._places.entries[key] for key in sources_of(value.made_of))
        place: object = (entry.offset, entry.dtype, entry.shape, entry.stride)
        place = place if entry.nbytes else object()
        if place not in self._nodes:
            name = str(self._next + len(self.storages))
            legacy = self._checkpoint.format == "torch-legacy"
            self._nodes[place] = tensor_node(entry, name, value.location, legacy=legacy)
            self.storages[name] = entry
        return self._nodes[place]


def _keys(mapping: DictNode) -> list[str | None]:
    """The keys as the reader shows them; None for those that it leaves out."""
    seen = [isinstance(key, str) or is_tensor(value) for key, value in mapping.items]
    own = [key for (key, _), it in zip(mapping.items, seen, strict=True) if it]
    shown = shown_keys(own)
    return [next(shown) if it else None for it in seen]
