"""Changes between two indexes, undone: a property over random writes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import ConflictError
from ckpt.registry.history.changes import Change, Value, changes, undone, value_text
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


BEFORE = Index().with_version(version(1)).with_version(version(2))


def test_changes_are_listed_by_kind_and_name() -> None:
    model = BEFORE.model(None).with_alias("prod", 1, protect=True).with_tag("golden", 2)
    after = BEFORE.with_model(model.with_alias("old", 2).without_alias("old"))
    after = after.with_version(version(1, "other"))
    assert changes(BEFORE, after) == [
        Change("mnist-cnn", "alias", "prod", None, "v1"),
        Change("mnist-cnn", "protected", "prod", None, True),
        Change("mnist-cnn", "tag", "golden", None, ("v2",)),
        Change("other", "version", "v1", None, "there"),
    ]
    assert changes(after, after) == []
    gone = after.with_model(after.model("mnist-cnn").with_tag("golden", 2, present=False))
    gone = gone.with_model(gone.model("mnist-cnn").without(2, at=AT))
    assert changes(after, gone) == [
        Change("mnist-cnn", "tag", "golden", ("v2",), None),
        Change("mnist-cnn", "version", "v2", "there", "removed"),
    ]
    (final,) = changes(gone, gone.with_model(gone.model("mnist-cnn").forgotten(2)))
    assert final.is_final
    assert not any(change.is_final for change in changes(BEFORE, after))
    with pytest.raises(ConflictError, match=r"^mnist-cnn:v2: deleted by gc, cannot be restored"):
        undone(gone, [final], at=AT)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "absent"), (True, "protected"), (False, "not protected"), (("v1", "v2"), "v1, v2"),
     ("v3", "v3"), ("removed", "removed"), ("there", "present")],
)  # fmt: skip
def test_value_in_words(value: Value, words: str) -> None:
    assert value_text(value) == words


def test_removed_version_comes_back_with_what_pointed_to_it() -> None:
    model = BEFORE.model(None).with_tag("golden", 2).with_tag("golden", 1)
    tagged = BEFORE.with_model(model.with_alias("prod", 2, protect=True))
    plain = tagged.with_model(tagged.model(None).without_alias("prod"))
    gone = plain.with_model(plain.model(None).without(2, at=AT))
    assert gone.model(None).removed[2].removed == AT
    assert gone.model(None).tags == {"golden": (1,)}
    assert undone(gone, changes(tagged, gone), at=AT).models == tagged.models
    back = undone(tagged, changes(BEFORE, tagged), at=AT)
    assert back.models == BEFORE.models
    with pytest.raises(ConflictError, match="it is absent, expected v2"):
        undone(plain, changes(BEFORE, tagged), at=AT)
