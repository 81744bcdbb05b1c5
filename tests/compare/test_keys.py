from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from ckpt.compare.keys import compare_entries, fit
from ckpt.tensors import StateDict, TensorEntry


def entry(
    key: str, shape: tuple[int, ...] = (2,), dtype: str = "float32", digest: str | None = None
):
    return TensorEntry(key, dtype, shape, digest=digest)


def test_each_kind_of_difference_is_found() -> None:
    before = [
        entry("gone", digest="1"), entry("old.weight", digest="2"), entry("shape", (2,)),
        entry("type", digest="4"), entry("value", digest="5"), entry("same", digest="6"),
    ]  # fmt: skip
    after = [
        entry("come", digest="7"), entry("new.weight", digest="2"), entry("shape", (3,)),
        entry("type", dtype="float16", digest="4"), entry("value", digest="8"),
        entry("same", digest="6"),
    ]  # fmt: skip
    diff = compare_entries(before, after)
    assert [e.key for e in diff.removed] == ["gone"]
    assert [e.key for e in diff.added] == ["come"]
    assert [(a.key, b.key) for a, b in diff.renamed] == [("old.weight", "new.weight")]
    assert [a.key for a, _ in diff.reshaped] == ["shape"]
    assert [a.key for a, _ in diff.retyped] == ["type"]
    assert [a.key for a, _ in diff.changed] == ["value"]
    assert [a.key for a, _ in diff.same] == ["same"]
    assert diff.differs


def test_equal_bytes_of_another_shape_are_no_rename() -> None:
    diff = compare_entries([entry("a", (6,), digest="1")], [entry("b", (2, 3), digest="1")])
    assert not diff.renamed
    assert len(diff.removed) == len(diff.added) == 1


def test_zeros_are_paired_by_their_last_part_first() -> None:
    before = [entry("x.weight", digest="0"), entry("x.bias", digest="0")]
    after = [entry("y.bias", digest="0"), entry("y.weight", digest="0")]
    diff = compare_entries(before, after)
    assert {(a.key, b.key) for a, b in diff.renamed} == {
        ("x.weight", "y.weight"),
        ("x.bias", "y.bias"),
    }


def test_entries_without_digest_are_not_called_the_same() -> None:
    diff = compare_entries([entry("a", digest="1")], [entry("a")])
    assert len(diff.unread) == 1
    assert not diff.same


def test_fit_is_strict_about_keys_and_shapes_and_not_about_dtype() -> None:
    found = fit(
        StateDict(
            [entry("a"), entry("b", (3,)), entry("half", dtype="float16"), entry("extra")],
            ["other"],
        ),
        StateDict([entry("a"), entry("b", (4,)), entry("half"), entry("lacking")]),
    )
    assert [e.key for e in found.missing] == ["lacking"]
    assert [e.key for e in found.unexpected] == ["extra", "other"]
    assert [a.key for a, _ in found.reshaped] == ["b"]
    assert found.agreeing == 2
    assert not found.fits


sides = st.lists(
    st.builds(
        entry,
        st.sampled_from("abcdef"),
        st.sampled_from([(1,), (2,)]),
        st.sampled_from(["float32", "int32"]),
        st.sampled_from([None, "1", "2"]),
    ),
    unique_by=lambda e: e.key,
)


@given(sides, sides)
def test_every_entry_of_both_sides_is_accounted_for(before, after) -> None:
    diff = compare_entries(before, after)
    pairs = [*diff.renamed, *diff.changed, *diff.same, *diff.unread]
    odd = {a.key: (a, b) for a, b in [*diff.reshaped, *diff.retyped]}.values()
    mine = [*diff.removed, *(a for a, _ in pairs), *(a for a, _ in odd)]
    theirs = [*diff.added, *(b for _, b in pairs), *(b for _, b in odd)]
    assert sorted(e.key for e in mine) == sorted(e.key for e in before)
    assert sorted(e.key for e in theirs) == sorted(e.key for e in after)


@given(sides)
def test_nothing_differs_from_itself(side) -> None:
    assert not compare_entries(side, side).differs


def test_ties_that_came_and_went_are_told_and_are_no_difference() -> None:
    entries = [entry(key, digest="1") for key in ("embed", "head", "other")]
    diff = compare_entries(entries, entries, ties=({"head": "embed"}, {"other": "embed"}))
    assert diff.tied == (("other", "embed"),)
    assert diff.untied == (("head", "embed"),)
    assert not diff.differs
    again = compare_entries(entries, entries, ties=({"head": "embed"}, {"embed": "head"}))
    assert again.tied == again.untied == ()


@given(st.permutations(range(7)))
def test_reordered_keys_are_the_fewest_that_explain_the_order(order: list[int]) -> None:
    before = [entry(str(number), digest="1") for number in range(7)]
    diff = compare_entries(before, [before[number] for number in order])
    kept = [number for number in order if str(number) not in diff.reordered]
    assert kept == sorted(kept)
    longest = max(
        len(chosen)
        for size in range(8)
        for chosen in combinations(order, size)
        if list(chosen) == sorted(chosen)
    )
    assert len(diff.reordered) == 7 - longest
    assert not diff.differs


@given(st.lists(st.text("ab.", min_size=1, max_size=3), unique=True, max_size=6),
       st.lists(st.text("ab.", min_size=1, max_size=3), unique=True, max_size=6))  # fmt: skip
def test_keys_before_are_all_of_the_first_side_once(mine: list[str], theirs: list[str]) -> None:
    sides = [[entry(key, digest=str(len(key))) for key in keys] for keys in (mine, theirs)]
    assert sorted(compare_entries(*sides).keys_before) == sorted(mine)
