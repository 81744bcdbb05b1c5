"""Words of names, and how alike they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.infer.words import Likeness, learn, read_name, word_likeness, words_of

WORDS = st.text("abcdefqkvonrmlwt", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("self_attn_layer_norm", ["self", "attention", "norm"]),
        ("LayerNorm", ["norm"]),
        ("post_attention_layernorm", ["mlp", "norm"]),
        ("fc1", ["fc", "1"]),
        ("w2", ["down"]),
        ("conv2d_1x1", ["conv", "2", "d", "1", "x", "1"]),
        ("proj", ["proj", "out"]),
        ("q_proj", ["q", "proj"]),
        ("", []),
    ],
)
def test_words_of_a_part(part: str, words: list[str]) -> None:
    assert [*words_of(part)] == words


@pytest.mark.parametrize(
    ("one", "other"),
    [("query", "q"), ("gamma", "weight"), ("attn", "attention"), ("emb", "embedding"),
     ("conv", "cnv"), ("blocks", "layers"), ("classifier", "head")],
)  # fmt: skip
def test_words_that_mean_the_same(one: str, other: str) -> None:
    assert word_likeness(one, other) >= 0.5


@pytest.mark.parametrize(("one", "other"), [("query", "key"), ("weight", "bias"), ("in", "out")])
def test_words_that_do_not(one: str, other: str) -> None:
    assert word_likeness(one, other) == 0


@given(WORDS, WORDS)
def test_likeness_is_the_same_both_ways(one: str, other: str) -> None:
    assert 0 <= word_likeness(one, other) == word_likeness(other, one) <= 1


@given(st.lists(WORDS, min_size=1, max_size=5).map(".".join))
def test_name_is_like_itself(text: str) -> None:
    name = read_name(text, leaf=True)
    assert Likeness({}).of_names(name, name) == pytest.approx(1.0)


def test_words_are_learned_from_what_comes_together() -> None:
    pairs = [(f"{a}.conv.weight", f"{a}.zorp.weight") for a in ("x", "y", "z")]
    pairs += [(f"{a}.norm.weight", f"{a}.meki.weight") for a in ("x", "y", "z")]
    learned = learn(pairs)
    assert learned["conv", "zorp"] == 1.0
    assert ("conv", "meki") not in learned
