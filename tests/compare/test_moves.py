from hypothesis import given
from hypothesis import strategies as st

from ckpt.compare.moves import Move, find_moves

RESNET = [
    f"layer{at}.{block}.{leaf}"
    for at in (1, 2)
    for block in (0, 1)
    for leaf in ("conv1.weight", "bn1.weight", "bn1.bias")
]
KEYS = ["conv1.weight", *RESNET, "fc.weight"]


def test_all_under_a_new_parent_is_one_move() -> None:
    pairs = [(key, f"backbone.{key}") for key in KEYS]
    assert find_moves(KEYS, pairs) == ([Move("", "backbone", len(KEYS))], [])


def test_module_that_moved_is_one_move_and_the_others_are_left() -> None:
    pairs = [(key, f"stem.{key}") for key in RESNET if key.startswith("layer1")]
    pairs += [("fc.weight", "head.weight")]
    assert find_moves(KEYS, pairs) == (
        [Move("layer1", "stem.layer1", 6)],
        [("fc.weight", "head.weight")],
    )


def test_of_half_a_module_the_modules_in_it_moved() -> None:
    pairs = [(key, f"stem.{key}") for key in RESNET if key.startswith("layer1.0.bn")]
    moves, left = find_moves(KEYS, pairs)
    assert moves == [Move("layer1.0.bn1", "stem.layer1.0.bn1", 2)]
    assert left == []


def test_another_name_is_no_move() -> None:
    pairs = [("a.conv.weight", "a.embed.weight"), ("a.conv.bias", "a.embed.bias")]
    assert find_moves(["a.conv.weight", "a.conv.bias"], pairs) == ([], pairs)


parts = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(parts, parts, max_size=12), st.sets(parts))
def test_every_pair_is_in_one_move_or_left(renamed: dict[str, str], others: set[str]) -> None:
    pairs = [(old, new) for old, new in renamed.items() if old != new]
    keys = {*renamed, *others}
    moves, left = find_moves(sorted(keys), pairs)
    assert sum(move.count for move in moves) + len(left) == len(pairs)
    for move in moves:
        under = [key for key in keys if not move.old or key.startswith(f"{move.old}.")]
        assert move.count <= len(under)
