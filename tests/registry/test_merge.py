"""Laws of the merge of two indexes, over random histories; and each rule by an example."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckpt.io import digest
from ckpt.registry.index import Index, Model
from ckpt.registry.index_file import parse_index
from ckpt.registry.merge import Merged, merged
from ckpt.registry.version import Version
from tests.registry.history.test_changes import AT, written
from tests.registry.test_index import version

LATER = "2026-11-26T09:00:00+00:00"


def contents(model: Model) -> set[str]:
    return {each.content for each in model.versions.values()}


def every(index: Index) -> dict[int, Version]:
    model = index.models.get("mnist-cnn") or Model(name="mnist-cnn")
    return {**model.versions, **model.removed}


def history(index: Index, draw: random.Random, side: str) -> Index:
    """Some writes. Versions hold bytes of their side, or bytes that both sides may register."""
    for _ in range(draw.randrange(6)):
        before, index = index, written(index, draw)
        model = index.models["mnist-cnn"]
        if model.removed and draw.random() < 0.2:
            model = model.restored(draw.choice(list(model.removed)), at=draw.choice([AT, LATER]))
            index = index.with_model(model)
        for number in sorted(every(index).keys() - every(before).keys()):
            held = {each.content for each in every(before).values()}
            content = draw.choice([f"{side} {number}", f"{side} {number}", "x", "y"])
            new = version(number, content=content)
            if new.content in held:
                new = version(number, content=f"{side} {number}")
            new = replace(new, manifest=digest.of_bytes(f"{side} {number}".encode()))
            index = index.with_model(replace(model, versions={**model.versions, number: new}))
    return replace(index, serial=draw.randrange(9), write_id=side)


def three(seed: int) -> tuple[Index, Index, Index]:
    draw = random.Random(seed)
    base = history(Index(), draw, "base")
    return base, history(base, draw, "ours"), history(base, draw, "theirs")


@given(st.integers(0, 2**32))
@example(37747)  # a restore by a clock that had gone back
def test_what_one_side_alone_did_is_the_result(seed: int) -> None:
    base, ours, _ = three(seed)
    for result in (merged(base, ours, base), merged(base, base, ours)):
        assert result.index.models == ours.models
        assert (result.renumbered, result.conflicts, result.kept) == ((), (), ())


@given(st.integers(0, 2**32))
def test_no_version_of_either_side_is_lost(seed: int) -> None:
    base, ours, theirs = three(seed)
    result = merged(base, ours, theirs).index
    assert parse_index(result.to_text(), name="x") == result, "whatever comes out is valid"
    before = {each.content for each in every(base).values()}
    got = {each.content for each in every(result).values()}
    for side, other in ((ours, theirs), (theirs, ours)):
        live = contents(side.models.get("mnist-cnn") or Model(name="x"))
        new = {each.content for each in every(side).values()} - before
        standing = contents(other.models["mnist-cnn"]) if other.models else set()
        untaken = before - standing  # what the other side removed, for good or not
        assert new <= got
        if "mnist-cnn" in result.models:
            assert live - untaken <= contents(result.models["mnist-cnn"])
    numbers = [max(every(each), default=0) for each in (ours, theirs, result)]
    next_numbers = [each.next_number("mnist-cnn") for each in (ours, theirs)]
    assert result.next_number("mnist-cnn") >= max(*next_numbers, *(n + 1 for n in numbers))


@given(st.integers(0, 2**32))
def test_published_numbers_stay_and_pointers_of_theirs_follow(seed: int) -> None:
    base, ours, theirs = three(seed)
    result = merged(base, ours, theirs, [[ours]])
    lines = every(result.index)
    for number, each in every(ours).items():
        if number in lines:  # not forgotten
            assert lines[number].content == each.content
    conflicts = {each.what for each in result.conflicts}
    for name, number in (theirs.models["mnist-cnn"].aliases if theirs.models else {}).items():
        unmoved = name in base.models["mnist-cnn"].aliases if base.models else False
        if f"mnist-cnn@{name}" not in conflicts and not unmoved:
            now = result.index.models["mnist-cnn"].aliases[name]
            assert lines[now].content == every(theirs)[number].content


@given(st.integers(0, 2**32))
def test_merge_again_changes_nothing_and_the_other_way_round_has_the_same_versions(
    seed: int,
) -> None:
    base, ours, theirs = three(seed)
    one = merged(base, ours, theirs)
    again = merged(base, one.index, theirs)
    assert again.index.models == one.index.models
    assert merged(base, ours, theirs) == one, "the same each time"
    other = merged(base, theirs, ours).index
    for name in one.index.models:
        # Which alias stands after a conflict differs, and with it what an alias keeps.
        if not one.conflicts:
            assert contents(one.index.models[name]) == contents(other.models[name])
        assert one.index.models[name].tags.keys() == other.models[name].tags.keys() or one.conflicts
    same = {each.content for each in every(one.index).values()}
    assert same == {each.content for each in every(other).values()}


@given(st.integers(0, 2**32), st.sampled_from([None, 0, 1]))
def test_who_merges_does_not_matter(seed: int, pushed: int | None) -> None:
    base, *sides = three(seed)
    published = [] if pushed is None else [[sides[pushed]]]
    one, other = (merged(base, *order, published) for order in (sides, sides[::-1]))
    numbers = [{n: v.content for n, v in every(each.index).items()} for each in (one, other)]
    if not one.conflicts:  # else an alias may keep another version
        assert numbers[0] == numbers[1]
    if pushed is not None:
        for number, each in every(sides[pushed]).items():
            assert numbers[0].get(number, each.content) == each.content


@given(st.integers(0, 2**32))
def test_merges_that_cross_lose_nothing(seed: int) -> None:
    """Both merge the other, and then their merges are merged."""
    base, ours, theirs = three(seed)
    here, there = merged(base, ours, theirs).index, merged(base, theirs, ours).index
    for ancestor in (base, here, there):
        crossed = merged(ancestor, here, there).index
        want = {each.content for each in every(here).values()}
        assert {each.content for each in every(crossed).values()} == want
        # Bytes that one side forgot and had anew may stand twice in one of them.
        assert len(every(crossed)) <= max(len(every(here)), len(every(there)))


def later(number: int, content: str) -> Version:
    return replace(version(number, content=content), created=LATER)


EARLIER = "2026-11-24T09:00:00+00:00"
BASE = Index().with_version(version(1)).with_version(version(2))


def on(index: Index, *operations: Callable[[Model], Model]) -> Index:
    model = index.model(None)
    for operation in operations:
        model = operation(model)
    return index.with_model(model)


def alias(name: str, number: int) -> Callable[[Model], Model]:
    return lambda model: model.with_alias(name, number)


def test_number_that_both_gave_out_is_renumbered_where_it_is_younger_with_its_pointers() -> None:
    ours = BASE.with_version(version(3, content="a"))
    theirs = on(BASE.with_version(later(3, "b")), alias("prod", 3))
    theirs = on(theirs, lambda model: model.with_tag("golden", 3))
    result = merged(BASE, ours, theirs)
    model = result.index.model(None)
    assert [each.content for each in model.versions.values()][2:] == [
        version(3, content="a").content,
        version(3, content="b").content,
    ]
    assert (model.versions[4].renumbered, model.aliases, model.tags, model.next_number) == (
        "v3",
        {"prod": 4},
        {"golden": (4,)},
        5,
    )
    (moved,) = result.renumbered
    assert (moved.before, moved.after, moved.is_twin) == ("mnist-cnn:v3", "v4", False)


def test_same_bytes_on_both_sides_are_one_version_with_both_manifests() -> None:
    ours = BASE.with_version(version(3, content="a")).with_version(later(4, "same"))
    twin = replace(later(3, "same"), manifest=version(77).manifest)
    theirs = on(BASE.with_version(twin), alias("prod", 3))
    result = merged(BASE, ours, theirs)
    model = result.index.model(None)
    assert sorted(model.versions) == [1, 2, 3, 4]
    assert model.aliases == {"prod": 4}
    assert model.versions[4].manifests == (version(4).manifest, twin.manifest)
    assert result.renumbered[0].is_twin


def test_number_that_ours_gave_out_and_forgot_is_not_given_to_theirs() -> None:
    ours = BASE.with_version(version(3, content="a"))
    ours = on(ours, lambda model: model.without(3, at=AT).forgotten(3))
    theirs = BASE.with_version(version(3, content="b"))
    assert sorted(merged(BASE, ours, theirs).index.model(None).versions) == [1, 2, 4]


@pytest.mark.parametrize(
    ("ours", "theirs", "now", "conflict"),
    [
        (1, 1, 1, False),
        (2, 1, 2, False),
        (1, 2, 2, False),
        (2, 2, 2, False),
        (None, 1, None, False),
        (1, None, None, False),
        (2, 3, 2, True),
        (2, None, 2, True),
        (None, 2, None, True),
    ],
)
def test_alias_moves_if_one_side_moved_it(
    ours: int | None, theirs: int | None, now: int | None, conflict: bool
) -> None:
    base = on(BASE.with_version(version(3)), alias("prod", 1))
    gone = on(base, lambda model: model.without_alias("prod"))
    sides = [on(base, alias("prod", number)) if number else gone for number in (ours, theirs)]
    result = merged(base, *sides)
    assert result.index.model(None).aliases.get("prod") == now
    assert bool(result.conflicts) == conflict
    if conflict:
        said = result.conflicts[0]
        words = [f"v{number}" if number else "none" for number in (ours, theirs, 1)]
        assert [said.ours, said.theirs, said.base] == words
        other = merged(base, *sides, take_theirs=True).index
        assert other.model(None).aliases.get("prod") == theirs


def test_alias_to_one_number_with_different_bytes_is_a_conflict() -> None:
    base = on(BASE, alias("prod", 1))
    ours = on(base.with_version(version(3, content="a")), alias("prod", 3))
    theirs = on(base.with_version(later(3, "b")), alias("prod", 3))
    (conflict,) = merged(base, ours, theirs).conflicts
    assert (conflict.ours, conflict.theirs, conflict.base) == ("v3", "v4", "v1")


def test_protection_follows_the_side_that_changed_it() -> None:
    base = on(BASE, lambda m: m.with_alias("a", 1, protect=True).with_alias("b", 1))
    ours = on(base, lambda m: m.with_alias("a", 1, protect=False))
    theirs = on(base, lambda m: m.with_alias("b", 1, protect=True))
    assert merged(base, ours, theirs).index.model(None).protected == {"b"}


def test_tags_are_joined_version_by_version() -> None:
    base = on(BASE, lambda m: m.with_tag("golden", 1).with_tag("old", 1))
    ours = on(base, lambda m: m.with_tag("golden", 2).with_tag("old", 1, present=False))
    theirs = on(base, lambda m: m.with_tag("golden", 1, present=False).with_tag("new", 1))
    assert merged(base, ours, theirs).index.model(None).tags == {"golden": (2,), "new": (1,)}


def test_removed_version_stays_if_an_alias_of_the_other_side_points_to_it() -> None:
    gone = on(BASE, lambda m: m.without(2, at=AT))
    assert list(merged(BASE, gone, BASE).index.model(None).removed) == [2]
    aliased = on(BASE, alias("prod", 2))
    for sides in ((gone, aliased), (aliased, gone)):
        result = merged(BASE, *sides)
        assert sorted(result.index.model(None).versions) == [1, 2]
        assert result.index.model(None).versions[2].removed == ""
        assert result.kept == ("mnist-cnn:v2",)


def test_identity_is_ours_and_no_conflict() -> None:
    """As where both branches made the registry, or gave an old one its identity."""
    ours, theirs = Index(id="a" * 32), Index(id="b" * 32)
    for base in (Index(), ours, theirs):
        result = merged(base, ours, theirs)
        assert (result.index.id, result.conflicts) == (ours.id, ())
    assert merged(Index(), Index(), theirs).index.id == theirs.id


def test_fault_26_unknown_fields_are_joined_one_by_one() -> None:
    def having(**values: str) -> Index:
        document = json.loads(BASE.to_text())
        for place in (
            document,
            document["models"]["mnist-cnn"],
            document["models"]["mnist-cnn"]["versions"]["v1"],
        ):
            place.update({f"future_{name}": value for name, value in values.items()})
        return parse_index(json.dumps(document), name="x")

    result = merged(having(a="1", b="1"), having(a="2", b="2"), having(a="1", b="3", c="4"))
    want = {"future_a": "2", "future_b": "2", "future_c": "4"}
    model = result.index.model(None)
    assert [result.index.unknown, model.unknown, model.versions[1].unknown] == [want] * 3
    assert len(result.conflicts) == 3


def test_models_of_one_side_are_in_the_result() -> None:
    ours, theirs = BASE.with_version(version(1, "a")), BASE.with_version(version(1, "b"))
    assert list(merged(BASE, ours, theirs).index.models) == ["a", "b", "mnist-cnn"]


def test_write_is_told_from_the_two_that_it_joins() -> None:
    ours, theirs = replace(BASE, serial=3, write_id="a"), replace(BASE, serial=7, write_id="b")
    one = merged(Index(), ours, theirs).index
    assert (one.serial, len(one.write_id)) == (8, 16)
    assert one.write_id == merged(Index(), ours, theirs).index.write_id
    assert one.write_id != merged(Index(), theirs, ours).index.write_id


def test_ten_thousand_versions_are_merged_in_seconds() -> None:
    lines = {number: version(number) for number in range(1, 10_001)}
    base = Index(models={"net": Model(name="net", next_number=10_001, versions=lines)})
    ours = base.with_model(replace(base.models["net"]).with_alias("a", 5))
    theirs = base.with_model(replace(base.models["net"]).with_alias("b", 6))
    assert merged(base, ours, theirs).index.models["net"].aliases == {"a": 5, "b": 6}


def test_version_that_both_changed_is_joined_line_by_line() -> None:
    ours = on(BASE, lambda m: m.without(2, at=AT))
    theirs = on(BASE, lambda m: m.without(2, at=LATER))
    line = merged(BASE, ours, theirs).index.model(None).removed[2]
    assert line.removed == AT, "ours stands"
    for sides in ((ours, BASE), (BASE, ours)):
        assert merged(BASE, *sides).index.model(None).removed[2].removed == AT
    restored = on(ours, lambda m: m.restored(2))
    assert list(merged(ours, restored, ours).index.model(None).versions) == [1, 2]
    assert list(merged(ours, ours, restored).index.model(None).versions) == [1, 2]


def test_later_one_of_a_removal_and_a_restore_holds() -> None:
    """Whichever side is ours, and whether the common ancestor has it or not."""
    gone = on(BASE, lambda m: m.without(2, at=EARLIER))
    for base in (BASE, gone):
        for removed_at, restored_at, state in ((AT, LATER, "there"), (LATER, AT, "removed")):
            removed = on(BASE, lambda m, at=removed_at: m.without(2, at=at))
            restored = on(gone, lambda m, at=restored_at: m.restored(2, at=at))
            for sides in ((removed, restored), (restored, removed)):
                result = merged(base, *sides)
                model = result.index.model(None)
                assert result.settled == (("mnist-cnn:v2", state),)
                line = (model.versions if state == "there" else model.removed)[2]
                assert (line.removed, line.restored) == (
                    "" if state == "there" else LATER,
                    restored_at,
                )


def test_restored_version_stays_where_the_other_side_still_has_it_removed() -> None:
    gone = on(BASE, lambda m: m.without(2, at=LATER))
    restored = on(gone, lambda m: m.restored(2, at=AT))  # by a clock that is slow
    for sides in ((gone, restored), (restored, gone)):
        result = merged(gone, *sides)
        assert (list(result.index.model(None).versions), result.settled) == ([1, 2], ())
    removed = on(restored, lambda m: m.without(2, at=EARLIER))
    for sides in ((removed, restored), (restored, removed)):
        result = merged(restored, *sides)
        assert (list(result.index.model(None).removed), result.settled) == ([2], ())


def test_version_forgotten_by_one_side_is_gone_and_by_none_stays() -> None:
    gone = on(BASE, lambda m: m.without(2, at=AT))
    forgotten = on(gone, lambda m: m.forgotten(2))
    for sides in ((gone, forgotten), (forgotten, gone)):
        model = merged(gone, *sides).index.model(None)
        assert (list(model.versions), list(model.removed), model.next_number) == ([1], [], 3)
    restored = on(gone, lambda m: m.restored(2))
    for sides in ((restored, forgotten), (forgotten, restored)):
        model = merged(gone, *sides).index.model(None)
        assert (list(model.versions), list(model.removed)) == ([1, 2], [])
    assert merged(gone, forgotten, restored).kept == ()


def test_numbers_of_theirs_follow_the_highest_of_all() -> None:
    base = BASE.with_model(replace(BASE.model(None), next_number=7))
    ours = base.with_version(version(7, content="a"))
    theirs = base.with_version(later(7, "b")).with_version(later(8, "c"))
    result = merged(base, ours, theirs)
    model = result.index.model(None)
    assert {number: each.content for number, each in model.versions.items() if number > 2} == {
        7: version(7, content="a").content,
        8: version(8, content="c").content,
        9: version(7, content="b").content,
    }
    assert (model.versions[9].renumbered, model.versions[8].renumbered) == ("v7", "")
    assert model.next_number == 10
    assert [(each.before, each.after) for each in result.renumbered] == [("mnist-cnn:v7", "v9")]


def test_renumbered_version_remembers_its_first_number() -> None:
    ours = BASE.with_version(version(3, content="a"))
    theirs = BASE.with_version(replace(later(3, "b"), renumbered="v9"))
    assert merged(BASE, ours, theirs).index.model(None).versions[4].renumbered == "v3"
    alone = merged(BASE, BASE, theirs).index.model(None).versions[3]
    assert alone.renumbered == "v9"
    twin = BASE.with_version(replace(version(3, content="b"), renumbered="v8"))
    assert merged(BASE, twin, theirs).index.model(None).versions[3].renumbered == "v8"
    plain = BASE.with_version(version(3, content="b"))
    assert merged(BASE, plain, theirs).index.model(None).versions[3].renumbered == "v9"


def test_manifests_of_the_same_bytes_are_all_kept() -> None:
    one, two, three = (version(90 + number).manifest for number in range(3))
    ours = BASE.with_version(replace(version(3), also=(one,)))
    theirs = BASE.with_version(replace(version(3), manifest=two, also=(three, version(3).manifest)))
    line = merged(BASE, ours, theirs).index.model(None).versions[3]
    assert line.manifest == version(3).manifest
    assert line.also == tuple(sorted((one, two, three)))


def test_alias_that_both_set_anew_or_took_away() -> None:
    three = BASE.with_version(version(3))
    ours, theirs = on(three, alias("prod", 1)), on(three, alias("prod", 2))
    (conflict,) = merged(three, ours, theirs).conflicts
    assert (conflict.what, conflict.base) == ("mnist-cnn@prod", "none")
    gone = on(ours, lambda m: m.without_alias("prod"))
    moved = on(ours, alias("prod", 3))
    assert merged(ours, moved, gone).conflicts[0].theirs == "none"
    assert merged(ours, gone, gone).conflicts == ()
    # Both that an alias may be moved to after a conflict stay, though one side removed one.
    lost = on(moved, lambda m: m.without(2, at=AT))
    result = merged(ours, lost, on(ours, alias("prod", 2)))
    assert sorted(result.index.model(None).versions) == [1, 2, 3]
    assert result.kept == ("mnist-cnn:v2",)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_alias_on_a_version_that_ours_renumbered_is_not_moved_by_ours(one: str, other: str) -> None:
    base = on(BASE.with_version(version(3, content=one)), alias("prod", 3))
    ours = BASE.with_version(version(3, content=other)).with_version(version(4, content=one))
    ours = on(ours, alias("prod", 4), lambda model: model.with_tag("golden", 4))
    result = merged(base, ours, on(base, alias("prod", 1)))
    assert (result.index.model(None).aliases, result.conflicts) == ({"prod": 1}, ())
    result = merged(base, ours, base)
    assert (result.index.model(None).aliases, result.conflicts) == ({"prod": 4}, ())
    result = merged(base, on(ours, alias("prod", 2)), on(base, alias("prod", 1)))
    (conflict,) = result.conflicts
    assert (conflict.ours, conflict.theirs, conflict.base) == ("v2", "v1", "v4")
    tagged = on(base, lambda model: model.with_tag("golden", 3))
    untagged = on(ours, lambda model: model.with_tag("golden", 4, present=False))
    assert merged(tagged, untagged, tagged).index.model(None).tags == {}


def numbers_of(result: Merged) -> dict[int, str]:
    return {n: each.message for n, each in every(result.index).items() if n > 2}


def three_of(side: str, number: int, created: str = AT) -> Version:
    return replace(version(number, content=side), created=created, message=side)


def test_number_keeps_the_version_that_was_published_whoever_merges() -> None:
    ann, bob = (BASE.with_version(three_of("ann", 3, LATER)), BASE.with_version(three_of("bob", 3)))
    for sides in ((ann, bob), (bob, ann)):
        assert numbers_of(merged(BASE, *sides, [[ann]])) == {3: "ann", 4: "bob"}
        assert numbers_of(merged(BASE, *sides)) == {3: "bob", 4: "ann"}, "created first"
        # The first group decides, as that of the default branch.
        assert numbers_of(merged(BASE, *sides, [[bob], [ann]])) == {3: "bob", 4: "ann"}


def test_number_that_was_published_twice_is_a_conflict() -> None:
    ann, bob = (BASE.with_version(three_of(name, 3)) for name in ("ann", "bob"))
    result = merged(BASE, ann, bob, [[ann, bob]])
    (conflict,) = result.conflicts
    assert conflict.what == "mnist-cnn:v3, published with both"
    assert numbers_of(result) == {3: "ann", 4: "bob"}
    other = merged(BASE, ann, bob, [[ann, bob]], take_theirs=True)
    assert numbers_of(other) == {3: "bob", 4: "ann"}


def test_commits_that_are_replayed_keep_what_the_replay_before_gave_them() -> None:
    """As in a rebase: ours is upstream with the first commit, base and theirs are the old ones."""
    upstream = BASE.with_version(three_of("pushed", 3, LATER))
    first = BASE.with_version(three_of("one", 3))
    second = first.with_version(three_of("two", 4))
    replayed = merged(BASE, upstream, first, [[upstream]])
    assert numbers_of(replayed) == {3: "pushed", 4: "one"}
    result = merged(first, replayed.index, second, [[upstream]])
    assert numbers_of(result) == {3: "pushed", 4: "one", 5: "two"}


def test_line_that_was_published_stays_the_version_s_own() -> None:
    mine = BASE.with_version(replace(three_of("same", 3), manifest=version(77).manifest))
    pushed = BASE.with_version(replace(three_of("same", 3), message="pushed"))
    for sides in ((mine, pushed), (pushed, mine)):
        assert numbers_of(merged(BASE, *sides, [[pushed]])) == {3: "pushed"}
