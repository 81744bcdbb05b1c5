"""A folder of torch.distributed.checkpoint in which rules make or drop tensors.

As in `remade`: copies of the state_dict get the same operations, optimizers the state of their new
parameters. Law: what is not touched keeps its bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import PlanError
from ckpt.formats.checked import CheckedSource
from ckpt.formats.distributed.folder import DistributedCheckpoint
from ckpt.formats.distributed.followers import GROUPS, STATE, Follower
from ckpt.formats.distributed.metadata import parts_of
from ckpt.formats.distributed.optimizers import folder_optimizers
from ckpt.formats.distributed.rewritten import Kept, NewKey, NewNames, NewTensor, rewritten
from ckpt.formats.opaque import OpaqueWord
from ckpt.formats.optimizers import HeldOptimizer
from ckpt.io.files import expect_room, write_folder
from ckpt.io.sources import ByteSource
from ckpt.rules.derived.other_tensors import with_sources
from ckpt.rules.expressions import Expression, Source, sources_of
from ckpt.rules.plan import Plan
from ckpt.tensors import Layout, TensorEntry
from ckpt.writing.checkpoint import Remaking, reader_back, write_files, written_folder
from ckpt.writing.derived import Derived
from ckpt.writing.moments import MadeTensor, Places, RegroupedOptimizer, state_after
from ckpt.writing.written import Written


@dataclass(frozen=True, slots=True)
class RemadeFolder(Remaking):
    """The new folder, before it is written.

    Attributes:
        source: What the layout is read from.
        layout: Of the new folder.
        entries: Of its state_dict.
        nbytes: Of all its tensors.
        also: Other places in the folder that follow.
    """

    source: ByteSource
    layout: Layout
    entries: Sequence[TensorEntry]
    nbytes: int
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
        """See `Remaking.write`; an existing folder is never replaced."""
        expect_room(path.parent, self.nbytes)
        with write_folder(path, check=reader_back(path, self.entries, inside)) as folder:
            write_files(self.layout, self.source, folder)
            self._checked.finish(self._used)
        return written_folder(path, inside, self.also)


def remade_folder(
    folder: DistributedCheckpoint,
    plan: Plan,
    optimizers: Iterable[RegroupedOptimizer],
    *,
    drops_optimizers: bool,
) -> RemadeFolder:
    """Work out the folder that a plan makes.

    Args:
        folder: The old one.
        plan: The plan.
        optimizers: The new parameters of its optimizers.
        drops_optimizers: Whether it has none.

    Raises:
        PlanError: A copy or an optimizer cannot follow.
    """
    making = _Making(folder, plan)
    making.copy(folder.prefix, {entry.key: folder.prefix + entry.key for entry in folder.entries})
    for head, keys in _copies(folder).items():
        making.copy(head, keys)
    for key in folder.metadata.values:
        if key.startswith(folder.prefix) and plan.drops(key.removeprefix(folder.prefix)):
            making.put((key,), ())
    if drops_optimizers:
        for prefix in folder.optimizers:
            making.put(folder.of_optimizer(prefix), ())
    for after in optimizers:
        making.optimizer(after)
    return making.done()


def _copies(folder: DistributedCheckpoint) -> dict[str, dict[str, str]]:
    """What comes before the keys of every copy of the state_dict that follows, and these keys."""
    found: dict[str, dict[str, str]] = {}
    for key, it in (folder.followers() if folder.follows else {}).items():
        if not it.head.startswith(folder.optimizers):
            if it.tail or key not in folder.tensors:
                raise PlanError(f"{folder.source.name}: {key} is of an unknown form")
            found.setdefault(it.head, {})[it.key] = key
    return found


class _Making:
    """Collects the keys of the new folder."""

    def __init__(self, folder: DistributedCheckpoint, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._paths = {str(key): path for key, path in folder.metadata.paths}
        self._optimizers = folder_optimizers(folder)
        tensors = list(folder.tensors.values())
        self._places = Places(folder.source, tensors, self._optimizers.entries)
        self._checked = CheckedSource(folder.source, folder.checksums, tensors)
        self._derived = Derived(self._checked, self._places.entries)
        self._instead: dict[str, Sequence[NewKey]] = {}
        self._made: list[TensorEntry] = []
        self._used = set[str]()
        self._also: list[str] = []

    def put(self, old: Sequence[str], new: Iterable[NewKey]) -> None:
        """Put new keys in the place of old ones."""
        self._instead |= dict.fromkeys(old, ())
        self._instead[old[0]] = tuple(new)

    def copy(self, head: str, keys: Mapping[str, str]) -> None:
        """Apply the plan to the state_dict, or to a copy of it.

        Args:
            head: What its keys begin with, in the folder.
            keys: By a key of the state_dict, that of the folder.
        """
        if head != self._folder.prefix and self._changes(keys):
            self._also.append(head.partition(".")[0])
        self.put(list(keys.values()), self._tensors(head, keys))

    def optimizer(self, after: RegroupedOptimizer) -> None:
        """Give an optimizer the state and the groups of its new parameters."""
        prefix, held = next(
            (prefix, it) for prefix, it in self._optimizers.held.items() if it.path == after.path
        )
        own = self._folder.of_optimizer(prefix)
        self.put(own, [*self._state(prefix, held, after), *self._groups(prefix, held, after)])
        self._also += (f"{prefix}{part[:-1]}" for part in (STATE, GROUPS))

    def done(self) -> RemadeFolder:
        """The new folder."""
        folder = self._folder
        every = (*folder.metadata.tensors, *folder.metadata.values)
        keys = [new for key in every for new in self._instead.get(key, (self._kept(key),))]
        entries = self._plan.entries_after
        return RemadeFolder(
            self._derived.source,
            rewritten(folder, keys),
            entries,
            sum(entry.nbytes for entry in self._made),
            tuple(self._also),
            self._checked,
            folder.chunks(self._used),
        )

    def _changes(self, keys: Mapping[str, str]) -> bool:
        kept = self._plan.new_keys
        return any(kept.get(key) != key for key in keys)

    def _kept(self, key: str) -> NewKey:
        return NewKey(key, self._paths.get(key), Kept(key))

    def _tensors(self, head: str, keys: Mapping[str, str]) -> Iterator[NewKey]:
        for tensor in self._plan.tensors:
            sources = list(dict.fromkeys(sources_of(tensor.made_of)))
            if head != self._folder.prefix and not any(key in keys for key in sources):
                continue  # a copy has only some of the tensors
            if lacks := next((key for key in sources if key not in keys), None):
                raise self._stays(head, tensor.key, f"it lacks {lacks}")
            like = keys[sources[0]] if sources else next(iter(self._folder.tensors))
            new = head + tensor.key
            path = self._paths.get(like)
            value: Kept | NewTensor = Kept(like)
            if not isinstance(tensor.made_of, Source):
                value = self._value(new, self._over(head, tensor.key, tensor.made_of, keys), like)
            yield NewKey(new, path and _with_texts(path, parts_of(path, new)), value)

    def _over(
        self, head: str, key: str, made_of: Expression, keys: Mapping[str, str]
    ) -> Expression:
        """The same expression over tensors of the folder."""

        def theirs(source: Source) -> Source:
            entry = self._folder.tensors[keys[source.key]]
            if entry.shape != source.shape:
                shape = list(entry.shape)
                raise self._stays(head, key, f"{entry.key} has shape {shape}")
            return Source(entry.key, entry.dtype, entry.shape)

        return with_sources(made_of, theirs)

    def _stays(self, head: str, key: str, why: str) -> PlanError:
        name = self._folder.source.name
        return PlanError(f"{name}: {head.removesuffix('.')} cannot follow to {key}: {why}")

    def _value(self, key: str, made_of: Expression, like: str) -> NewTensor:
        entry = self._derived.entry(key, made_of)
        self._made.append(entry)
        self._used |= {self._places.entries[source].key for source in sources_of(made_of)}
        return NewTensor(entry, like)

    def _state(
        self, prefix: str, held: HeldOptimizer, after: RegroupedOptimizer
    ) -> Iterator[NewKey]:
        tensors = {tensor.key: tensor.made_of for tensor in self._plan.tensors}
        for key, fields in state_after(held, after, tensors, self._places).items():
            old = str(after.owners[next(sources_of(tensors[key]))])
            for name, value in fields.items():
                like = f"{prefix}{STATE}{old}.{name}"
                new = self._renamed(like, prefix + STATE, old, str(after.called[key]))
                if isinstance(value, MadeTensor):
                    yield NewKey(new.key, new.path, self._value(new.key, value.made_of, like))
                else:
                    yield new

    def _groups(
        self, prefix: str, held: HeldOptimizer, after: RegroupedOptimizer
    ) -> Iterator[NewKey]:
        head = prefix + GROUPS
        for at, (before, keys) in enumerate(zip(held.groups, after.groups, strict=True)):
            if held.flat:
                old = str(before[0])
                for key in keys:
                    for option in held.options[at]:
                        like = f"{head}{old}.{option}"
                        yield self._renamed(like, head, old, str(after.called[key]))
                continue
            yield from (self._kept(f"{head}{at}.{option}") for option in held.options[at])
            called = tuple(str(after.called[key]) for key in keys)
            yield self._names(f"{head}{at}.params", tuple(map(str, before)), called)
            if held.names:
                yield self._names(f"{head}{at}.param_names", held.names[at], tuple(keys))

    def _names(self, key: str, before: tuple[str, ...], names: tuple[str, ...]) -> NewKey:
        value = Kept(key) if names == before else NewNames(names)
        return NewKey(key, self._paths.get(key), value)

    def _renamed(self, key: str, head: str, old: str, new: str) -> NewKey:
        """A key of an optimizer, with what it has, for another parameter."""
        of = Follower(head, head, old, key.removeprefix(f"{head}{old}"))
        path = self._paths.get(key)
        return NewKey(of.renamed(new), path and _with_texts(path, of.path(path, new)), Kept(key))


def _with_texts(path: tuple[object, ...], texts: Sequence[str]) -> tuple[object, ...]:
    """A path with other texts; its numbers stay."""
    return tuple(
        part if str(part) == text else text for part, text in zip(path, texts, strict=True)
    )
