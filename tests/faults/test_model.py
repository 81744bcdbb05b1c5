"""A registry against a dictionary: any commands in any order, and what they must come to."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ckpt.errors import ConflictError, RefError
from ckpt.ops import alias as aliasing
from ckpt.ops.export import export
from ckpt.ops.gc import gc
from ckpt.ops.redo import redo
from ckpt.ops.register import register
from ckpt.ops.rename import rename
from ckpt.ops.restore import restore
from ckpt.ops.rm import rm
from ckpt.ops.tag import tag
from ckpt.ops.undo import undo
from ckpt.ops.verify import verify
from ckpt.registry.registry import Registry
from tests.effort import by_effort
from tests.faults.stage import save

MODELS, ALIASES, TAGS = ("a", "b"), ("prod", "best"), ("x", "y")
FILES = 4
names = st.sampled_from(MODELS)
any_of_them = st.integers(0, 1000)


@dataclass
class Known:
    """One model as it should be: its numbers, and where its names stand.

    Attributes:
        files: The bytes of every version that ever was.
        standing: Those that were not removed.
    """

    files: dict[int, bytes] = field(default_factory=dict)
    standing: set[int] = field(default_factory=set)
    aliases: dict[str, int] = field(default_factory=dict)
    tags: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in TAGS})


class RegistryMachine(RuleBasedStateMachine):
    """Each rule does one thing to the registry, and the same to `known`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.registry = Registry(folder)
        self.known = {name: Known() for name in MODELS}
        self.before: list[dict[str, Known]] = []  # what each undo goes back to
        for seed in range(FILES):
            save(folder / f"{seed}.safetensors", seed)

    @property
    def refs(self) -> list[tuple[str, int]]:
        return [(name, number) for name in MODELS for number in sorted(self.known[name].standing)]

    def pick(self, at: int) -> tuple[str, int]:
        return self.refs[at % len(self.refs)]

    def begin(self) -> None:
        """Something is done now, which undo can take back."""
        self.before.append(deepcopy(self.known))

    @rule(name=names, seed=st.integers(0, FILES - 1))
    def register(self, name: str, seed: int) -> None:
        path = self.folder / f"{seed}.safetensors"
        added = register(path, registry=self.registry, name=name)
        self.added(name, added.version.number, path.read_bytes(), new=added.new)

    def added(self, name: str, number: int, data: bytes, *, new: bool) -> None:
        """P9: the same bytes are one version, and others are the next one."""
        model = self.known[name]
        same = {each for each in model.standing if model.files[each] == data}
        if same:
            assert (new, number) == (False, min(same))
            return
        assert (new, number) == (True, len(model.files) + 1)
        self.begin()
        model.files[number] = data
        model.standing.add(number)

    @precondition(lambda self: self.refs)
    @rule(at=any_of_them, pair=st.sampled_from(["conv=emb", "emb=conv", "fc=head"]))
    def rename(self, at: int, pair: str) -> None:
        name, number = self.pick(at)
        old, new = pair.split("=")
        keys = [entry.key for entry in self.manifest(name, number).entries]
        if not any(key.startswith(old) for key in keys):
            return
        added = rename(f"{name}:v{number}", [f"{old}->{new}"], registry=self.registry).added
        assert added is not None
        data = self.bytes_of(name, added.version.number)
        self.added(name, added.version.number, data, new=added.new)
        renamed = [entry.key for entry in self.manifest(name, added.version.number).entries]
        assert renamed == [key.replace(old, new) for key in keys]

    @precondition(lambda self: self.refs)
    @rule(at=any_of_them, alias=st.sampled_from(ALIASES), right=st.booleans())
    def move_alias(self, at: int, alias: str, right: bool) -> None:
        """Said from where; if that is wrong it stays, unless it is where it is wanted."""
        name, number = self.pick(at)
        model = self.known[name]
        now = f"v{model.aliases[alias]}" if alias in model.aliases else "none"
        expect = now if right else f"v{len(model.files) + 7}"
        ref = f"{name}:v{number}"
        if not right and model.aliases.get(alias) != number:
            with pytest.raises(ConflictError):
                aliasing.alias(f"{name}@{alias}", ref, expect=expect, registry=self.registry)
            return
        aliasing.alias(f"{name}@{alias}", ref, expect=expect, registry=self.registry)
        if model.aliases.get(alias) != number:
            self.begin()
            model.aliases[alias] = number

    @precondition(lambda self: self.refs)
    @rule(name=names, alias=st.sampled_from(ALIASES))
    def drop_alias(self, name: str, alias: str) -> None:
        model = self.known[name]
        if alias not in model.aliases:
            with pytest.raises(RefError):
                aliasing.alias(f"{name}@{alias}", delete=True, registry=self.registry)
            return
        aliasing.alias(f"{name}@{alias}", delete=True, registry=self.registry)
        self.begin()
        del model.aliases[alias]

    @precondition(lambda self: self.refs)
    @rule(at=any_of_them, label=st.sampled_from(TAGS), present=st.booleans())
    def tag(self, at: int, label: str, present: bool) -> None:
        name, number = self.pick(at)
        standing = self.known[name].tags[label]
        ref, has = f"{name}:v{number}", number in standing
        if not present and not has:
            with pytest.raises(RefError):
                tag(ref, [label], present=False, registry=self.registry)
            return
        tag(ref, [label], present=present, registry=self.registry)
        if has != present:
            self.begin()
            (self.known[name].tags[label].add if present else
             self.known[name].tags[label].discard)(number)  # fmt: skip

    @precondition(lambda self: self.refs)
    @rule(at=any_of_them)
    def remove(self, at: int) -> None:
        name, number = self.pick(at)
        model = self.known[name]
        if number in model.aliases.values():
            with pytest.raises(ConflictError):
                rm([f"{name}:v{number}"], registry=self.registry)
            return
        rm([f"{name}:v{number}"], registry=self.registry)
        self.begin()
        model.standing.discard(number)
        for standing in model.tags.values():
            standing.discard(number)

    @rule(name=names, at=any_of_them)
    def restore(self, name: str, at: int) -> None:
        """Any version; one that is there already stays as it is."""
        model = self.known[name]
        if not model.files:
            return
        number = sorted(model.files)[at % len(model.files)]
        restored = restore([f"{name}:v{number}"], registry=self.registry)
        assert len(restored.versions) == (number not in model.standing)
        if number not in model.standing:
            self.begin()
            model.standing.add(number)

    @precondition(lambda self: any(model.files for model in self.known.values()))
    @rule()
    def undo(self) -> None:
        """One step back; a version that was added keeps its number, as a removed one."""
        if not self.before:
            with pytest.raises(RefError):
                undo(registry=self.registry)
            return
        for act in (undo, redo, undo):  # the second takes the first one back
            assert not act(registry=self.registry).stepped_over
        before = self.before.pop()
        for name, model in before.items():
            model.files = self.known[name].files
        self.known = before

    @precondition(lambda self: self.refs)
    @rule()
    def collect(self) -> None:
        """P10: what was removed lately stays, since undo may bring it back."""
        gc(grace=timedelta(), registry=self.registry)
        assert not verify(registry=self.registry).damages

    @precondition(lambda self: self.refs)
    @rule(at=any_of_them)
    def export(self, at: int) -> None:
        name, number = self.pick(at)
        out = self.folder / "out.safetensors"
        export(f"{name}:v{number}", out, registry=self.registry, replace_out=True)
        assert out.read_bytes() == self.known[name].files[number]

    @invariant()
    def index_is_what_is_known(self) -> None:
        models = Registry(self.folder).index().models
        for name, known in self.known.items():
            if not known.files:
                assert name not in models
                continue
            model = models[name]
            assert set(model.versions) == known.standing
            assert set(model.removed) == set(known.files) - known.standing
            assert model.next_number == len(known.files) + 1
            assert model.aliases == known.aliases
            tags = {tag: set(numbers) for tag, numbers in model.tags.items()}
            assert tags == {tag: found for tag, found in known.tags.items() if found}

    def teardown(self) -> None:
        """P4: every version that stands is what it was when it was made."""
        assert not self.registry.exists or not verify(registry=self.registry).damages
        for name, number in self.refs:
            assert self.bytes_of(name, number) == self.known[name].files[number]

    def manifest(self, name: str, number: int):
        return self.registry.manifest(self.registry.version(f"{name}:v{number}"))

    def bytes_of(self, name: str, number: int) -> bytes:
        source = self.registry.source(self.registry.version(f"{name}:v{number}"))
        return source.read(0, source.size)


def test_registry_does_what_a_dictionary_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    fresh: Callable[[], RegistryMachine] = lambda: RegistryMachine(  # noqa: E731
        tmp_path_factory.mktemp("registry")
    )
    run_state_machine_as_test(
        fresh,
        settings=settings(
            max_examples=by_effort(2, 20, 300),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
