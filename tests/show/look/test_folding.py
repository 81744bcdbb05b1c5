import pytest

from ckpt.show.look.folding import fold

LAYERS = [f"encoder.layer.{i}.query.{leaf}" for i in range(12) for leaf in ("weight", "bias")]


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc.weight"],
            ["conv{1,2}.{weight,bias}", "fc.weight"],
        ),
        (LAYERS, ["encoder.layer.{0..11}.query.{weight,bias}"]),
        ([f"h.{i}.heads.{j}.w" for i in range(3) for j in range(4)], ["h.{0..2}.heads.{0..3}.w"]),
        (["a.0.b.1.w", "a.1.b.0.w"], ["a.0.b.1.w", "a.1.b.0.w"]),
        (["a.0.w", "a.2.w", "a.5.w"], ["a.{0,2,5}.w"]),
        (["weight", "bias"], ["weight", "bias"]),
    ],
    ids=["grid", "layers", "two indices", "no grid", "gaps", "no module"],
)
def test_alike_keys_fold_into_a_line(keys: list[str], lines: list[str]) -> None:
    folded = fold([(key,) for key in keys])
    assert [line.cells[0] for line in folded] == lines
    assert sum(line.count for line in folded) == len(keys)


def test_pairs_fold_where_indices_move_by_a_constant() -> None:
    folded = fold([(f"h.{i}.w", f"layers.{i + 1}.w") for i in range(4)])
    assert [line.cells for line in folded] == [("h.{0..3}.w", "layers.{1..4}.w")]


def test_reversal_is_not_folded_since_the_line_would_hide_it() -> None:
    pairs = [(f"up.{i}.w", f"up.{3 - i}.w") for i in range(4)]
    assert [line.cells for line in fold(pairs)] == pairs
