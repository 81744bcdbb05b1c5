"""Changes between two indexes, undone: a property over random writes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import ConflictError
from ckpt.registry.history.changes import changes, undone
from ckpt.registry.index import Index
from ckpt.registry.index_file import parse_index
from tests.registry.test_index import version

AT = "2026-11-25T09:00:00+00:00"


def written(index: Index, draw: random.Random) -> Index:
    """One random write."""
    if not index.models:
        return index.with_version(version(1))
    model = index.model(None)
    numbers = list(model.versions)
    choice = draw.choice(["add", "rm", "alias", "delete", "tag", "untag", "restore", "forget"])
    number = draw.choice(numbers) if numbers else None
    name = draw.choice(["a", "b"])
    match choice:
        case "rm" if number and number not in model.aliases.values():
            model = model.without(number, at=AT)
        case "forget" if model.removed:
            model = model.forgotten(draw.choice(list(model.removed)))
        case "restore" if model.removed:
            model = model.restored(draw.choice(list(model.removed)))
        case "alias" if number:
            model = model.with_alias(name, number, protect=draw.choice([None, True, False]))
        case "delete" if name in model.aliases:
            model = model.without_alias(name)
        case "tag" | "untag" if number:
            model = model.with_tag(name, number, present=choice == "tag")
        case "add":
            return index.with_version(version(model.next_number))
    return index.with_model(model)


@given(st.integers(0, 2**32))
def test_writes_undone_in_turn_give_what_was_before(seed: int) -> None:
    draw = random.Random(seed)
    index = Index()
    for _ in range(12):
        before, index = index, written(index, draw)
        assert parse_index(index.to_text(), name="x") == index
        if any(change.is_final for change in changes(before, index)):
            with pytest.raises(ConflictError, match="deleted by gc"):
                undone(index, changes(before, index), at=AT)
            continue
        back = undone(index, changes(before, index), at=AT)
        added = [c for c in changes(before, index) if c.kind == "version" and c.before is None]
        if not added:
            assert back.models == before.models
        else:
            (number,) = {int(change.name[1:]) for change in added}
            assert number in back.model(None).removed
            kept = before.model(None).versions if before.models else {}
            assert back.model(None).versions == kept


def test_what_was_changed_since_is_not_undone() -> None:
    before = Index().with_version(version(1)).with_version(version(2))
    one = before.with_model(before.model(None).with_alias("prod", 1))
    two = one.with_model(one.model(None).with_alias("prod", 2))
    with pytest.raises(ConflictError, match="alias prod has changed since: it is v2, expected v1"):
        undone(two, changes(before, one), at=AT)
