"""The history that writes leave, replayed by a few lines that share no code with it."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ckpt.registry.history.logged import logged
from ckpt.registry.index import Index
from tests.registry.history.test_changes import AT, written
from tests.registry.test_index import version

BY = {"author": "Ann", "host": "a"}
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@given(st.integers(0, 2**32))
def test_history_tells_what_every_alias_and_tag_was_at_any_time(seed: int) -> None:
    draw, index = random.Random(seed), Index()
    for _ in range(15):
        before = index
        # The clock of this machine may go backwards.
        now = NOW + timedelta(seconds=draw.randrange(-9, 9))
        index = logged(before, written(index, draw), by=BY, text="", now=now)
        aliases, protected, tags, removed = {}, set(), set(), set()
        history = index.model(None).log
        assert [each.at for each in history] == sorted({each.at for each in history})
        for each in history:
            match each.did:
                case "alias":
                    assert each.before == aliases.get(each.name, "")
                    aliases[each.name] = each.version
                case "unalias":
                    assert each.before == aliases.pop(each.name)
                    protected.discard(each.name)
                case "protect":
                    protected.add(each.name)
                case "unprotect":
                    protected.discard(each.name)
                case "tag":
                    tags.add((each.name, each.version))
                case "untag":
                    tags.remove((each.name, each.version))
                case "rm":
                    removed.add(each.version)
                    tags = {pair for pair in tags if pair[1] != each.version}
                case "restore":
                    removed.remove(each.version)
        model = index.model(None)
        assert aliases == {name: f"v{number}" for name, number in model.aliases.items()}
        assert protected == model.protected
        assert tags == {(name, f"v{n}") for name, numbers in model.tags.items() for n in numbers}
        assert {f"v{number}" for number in model.removed} <= removed


def test_value_written_last_is_the_newest_though_the_clock_went_back() -> None:
    first = Index().with_version(version(1))
    one = logged(first, _alias(first, "a"), by=BY, text="", now=NOW)
    two = logged(one, _alias(one, "b"), by=BY, text="", now=NOW - timedelta(days=1))
    assert [each.name for each in two.model(None).log] == ["a", "b"]
    removed = two.with_model(two.model(None).without_alias("a").without_alias("b"))
    three = logged(two, removed, by=BY, text="cleaning", now=NOW)
    assert [each.did for each in three.model(None).log[2:]] == ["unalias", "unalias"]
    assert {each.text for each in three.model(None).log[2:]} == {"cleaning"}
    gone = three.with_model(three.model(None).without(1, at=AT))
    assert logged(three, gone, by=BY, text="", now=NOW).model(None).log[-1].did == "rm"


def test_event_of_the_last_possible_moment_stops_nobody() -> None:
    first = Index().with_version(version(1))
    end = datetime.max.replace(tzinfo=UTC)
    late = logged(first, _alias(first, "a"), by=BY, text="", now=end)
    assert len(logged(late, _alias(late, "b"), by=BY, text="", now=NOW).model(None).log) == 2


def _alias(index: Index, name: str) -> Index:
    return index.with_model(index.model(None).with_alias(name, 1))
