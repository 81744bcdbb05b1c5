"""A walk through refactorings: every earlier state_dict arrives at every later class."""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ckpt.migrate.chain import problem_of
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import Migration, write_migration
from ckpt.migrate.schema import Schema
from ckpt.migrate.way import AmbiguousEntryError, Way
from ckpt.ops.migrate.new import drafted
from ckpt.rules.document import read_rules
from ckpt.tensors import TensorEntry
from ckpt.writing.evaluated import evaluated
from tests.effort import by_effort
from tests.migrate import refactorings
from tests.migrate.refactorings import Refactoring, State

SIZES = ((3, 6), (1, 6), (5, 9))  # depth and width; migrations are made with the first
STEPS = by_effort(9, 20, 20)
WALKS = by_effort(1, 4, 200)


@dataclass(eq=False)
class Commit:
    """A form of the class.

    Attributes:
        states: Its state_dict, for each of `SIZES`.
        number: Its `ckpt_schema`.
        came_from: The forms whose state_dicts it must load.
    """

    states: tuple[State, ...]
    number: int
    came_from: "list[Commit]"

    def schema(self, size: int) -> Schema:
        return schema_of(self.states[size], self.number)

    @property
    def ancestors(self) -> "list[Commit]":
        found: dict[int, Commit] = {}
        for parent in self.came_from:
            found |= {id(it): it for it in (parent, *parent.ancestors)}
        return [*found.values()]


def schema_of(state: State, number: int | None) -> Schema:
    entries = (TensorEntry(k, "float32", tuple(v.shape)) for k, v in state.items())
    return Schema(tuple(entries), number)


class History:
    """Commits, and the migrations beside the class."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.place = Place(folder / "migrations", "net.py:Net")
        self.commits = [Commit(tuple(refactorings.model(*size) for size in SIZES), 1, [])]

    @property
    def last(self) -> Commit:
        return self.commits[-1]

    def drawn(self, at: Commit, top: str | None = None) -> Refactoring:
        kinds = refactorings.EVERYWHERE if top is None else refactorings.IN_ONE_PART
        while True:
            kind: Callable[..., Refactoring | None] = self.draw.choice(kinds)
            change = (
                kind(at.states[0], self.draw) if top is None else kind(at.states[0], self.draw, top)
            )
            if change is not None:
                return change

    def commit(self, at: Commit, change: Refactoring) -> Commit:
        """A class after a refactoring, and its migration."""
        number = at.number + change.renumbers
        made = Commit(tuple(change.apply(state) for state in at.states), number, [at])
        rules = read_rules(change.rules, name=change.name)
        taken = [it.name for it in self.migrations]
        migration = drafted(
            at.schema(0), made.schema(0), rules,
            place=self.place, message=change.name, on=["net.py:Net"], taken=taken,
        )  # fmt: skip
        write_migration(self.place.folder, migration)
        self.commits.append(made)
        return made

    def step(self) -> None:
        """One refactoring, or two on branches that are merged."""
        at = self.last
        tops = sorted({key.split(".")[0] for key in at.states[0]})
        if len(tops) < 2 or self.draw.random() > 0.3:
            self.commit(at, self.drawn(at))
            return
        changes = [self.drawn(at, top) for top in self.draw.sample(tops, 2)]
        if all(change.renumbers for change in changes):  # git reports the number as a conflict
            return
        branches = [self.commit(at, change) for change in changes]
        both = [changes[1].apply(state) for state in branches[0].states]
        number = max(branch.number for branch in branches)
        self.commits.append(Commit(tuple(both), number, branches))

    @property
    def migrations(self) -> tuple[Migration, ...]:
        return self.place.migrations()


def expect_arrival(graph: Graph, old: Commit, new: Commit, size: int) -> None:
    way = graph.way(old.schema(size), new.schema(size))
    assert way is not None
    assert arrives(way, old.states[size], new.states[size])


def expect_no_guess(graph: Graph, old: Commit, new: Commit) -> None:
    """A state_dict that does not say its number arrives right, or is refused."""
    with contextlib.suppress(AmbiguousEntryError):
        way = graph.way(schema_of(old.states[0], None), new.schema(0))
        assert way is None or arrives(way, old.states[0], new.states[0])


def arrives(way: Way, before: State, after: State) -> bool:
    made = {tensor.key: evaluated(tensor.made_of, before) for tensor in way.planned}
    return made.keys() == after.keys() and all(
        torch.equal(value, after[key]) for key, value in made.items()
    )


@pytest.mark.parametrize("seed", range(WALKS))
def test_every_earlier_state_dict_arrives_at_every_later_class(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    for _ in range(STEPS):
        history.step()
    graph = history.place.graph()
    assert all(problem_of(migration) is None for migration in graph.migrations)
    pairs = [(old, new) for new in history.commits for old in new.ancestors]
    last = [(old, history.last) for old in history.last.ancestors]
    backs = 0
    for old, new in [*last, *history.draw.sample(pairs, min(20, len(pairs)))]:
        for size in range(len(SIZES)):
            expect_arrival(graph, old, new, size)
        expect_no_guess(graph, old, new)
        back = graph.way(new.schema(0), old.schema(0))
        if back is not None:
            backs += 1
            expect_arrival(graph, new, old, 0)
    assert backs
