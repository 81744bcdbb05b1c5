"""The inference on small cases, and its laws on made ones."""

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.infer.engine import infer
from ckpt.infer.result import DROPPED, Confidence, Inference
from ckpt.tensors import TensorEntry
from tests.effort import examples

Listed = dict[str, tuple[int, ...]]


def entries(listed: Listed, dtype: str = "float32") -> list[TensorEntry]:
    return [TensorEntry(key, dtype, shape) for key, shape in listed.items()]


def inferred(source: Listed, target: Listed) -> Inference:
    return infer(entries(source), entries(target))


def renames(found: Inference) -> dict[str, str]:
    return {match.source: match.target for match in found.matches}


def confidences(found: Inference) -> dict[str, Confidence]:
    return {match.source: match.confidence for match in found.matches}


def linear(name: str, out: int, into: int) -> Listed:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def obeys(found: Inference, source: Sequence[TensorEntry], target: Sequence[TensorEntry]) -> None:
    """The law of `ckpt.infer.result`."""
    used = {match.source for match in found.matches}
    operated = [key for each in found.operations for key in each.sources]
    assert {*used, *operated, *found.dropped} == {entry.key for entry in source}
    assert len(used) + len(operated) + len(found.dropped) == len(source)
    made = [match.target for match in found.matches]
    made += [key for each in found.operations for key in each.targets]
    assert sorted([*made, *found.missing]) == sorted(entry.key for entry in target)


def test_nothing_on_either_side() -> None:
    assert inferred({}, {}) == Inference((), (), (), ())
    assert inferred({"a": (1,)}, {}).dropped == ("a",)
    assert inferred({}, {"a": (1,)}).missing == ("a",)


def test_shape_that_each_side_has_once_is_certain_if_names_agree() -> None:
    found = inferred({"fc": (7, 3), **linear("a", 2, 2)}, {"head": (7, 3), **linear("a", 2, 2)})
    assert renames(found)["fc"] == "head"
    assert confidences(found)["fc"] is Confidence.CERTAIN


def test_shape_alone_is_a_guess() -> None:
    """Among names that stay, it may as well be an old tensor and a new one."""
    found = inferred({"x": (7, 3), **linear("a", 2, 2)}, {"zorp": (7, 3), **linear("a", 2, 2)})
    (match,) = found.ambiguous()
    assert (match.source, match.candidates) == ("x", ("zorp", DROPPED))


def test_square_that_may_be_transposed_is_not_certain() -> None:
    found = inferred({"x.weight": (5, 5)}, {"y.weight": (5, 5)})
    assert confidences(found)["x.weight"] is Confidence.LIKELY


def test_exact_name_counts_more_than_a_place_in_a_row() -> None:
    old = linear("norm1", 4, 4) | linear("norm2", 4, 4) | linear("norm3", 4, 4)
    new = linear("norm_pre", 4, 4) | linear("norm_post", 4, 4) | linear("norm3", 4, 4)
    for source, target in ((old, new), (new, old)):
        found = inferred(source, target)
        assert renames(found)["norm3.weight"] == "norm3.weight"


def test_synonyms_and_wrappers() -> None:
    source = linear("module.attn.query", 4, 4) | linear("module.attn.key", 4, 4)
    target = linear("attention.k_proj", 4, 4) | linear("attention.q_proj", 4, 4)
    found = inferred(source, target)
    assert renames(found) == {
        "module.attn.query.weight": "attention.q_proj.weight",
        "module.attn.query.bias": "attention.q_proj.bias",
        "module.attn.key.weight": "attention.k_proj.weight",
        "module.attn.key.bias": "attention.k_proj.bias",
    }
    assert found.settled


def test_sizes_that_agree_by_chance_pair_no_modules() -> None:
    """24 columns and four vectors have as many elements as 25 and three."""
    source, target = Listed(), Listed()
    for number, conv in enumerate(((8, 24, 1, 1), (8, 1, 5, 5))):
        leaves = ("weight", "running_mean", "running_var")
        source |= {f"block.{number}.0.weight": conv, f"block.{number}.1.bias": (8,)}
        source |= {f"block.{number}.1.{leaf}": (8,) for leaf in leaves}
        target |= {f"layer.{number}.0.weight": conv}
        target |= {f"layer.{number}.1.{leaf}": (8,) for leaf in leaves}
    assert renames(inferred(source, target)) == {
        key.replace("layer", "block"): key for key in target
    }


def test_two_alike_without_telling_names_are_open() -> None:
    found = inferred(linear("bada", 4, 4) | linear("gulu", 4, 4),
                     linear("zorp", 4, 4) | linear("meki", 4, 4))  # fmt: skip
    assert {*confidences(found).values()} == {Confidence.AMBIGUOUS}
    first = next(match for match in found.matches if match.source == "bada.weight")
    assert {*first.candidates} == {"zorp.weight", "meki.weight"}


def test_two_alike_blocks_without_telling_names_are_open() -> None:
    def block(name: str) -> Listed:
        return linear(f"{name}.fc1", 8, 4) | linear(f"{name}.fc2", 4, 8)

    found = inferred(block("bada") | block("gulu"), block("zorp") | block("meki"))
    assert {*confidences(found).values()} == {Confidence.AMBIGUOUS}
    first = next(match for match in found.matches if match.source == "bada.fc1.weight")
    assert {*first.candidates} == {"zorp.fc1.weight", "meki.fc1.weight"}


def test_index_that_moves_is_found_by_its_shapes() -> None:
    """The downsampling of Swin stands at the end of a stage, or at the start of the next."""
    source, target = Listed(), Listed()
    for stage, width in enumerate((8, 16, 32)):
        block = linear(f"layers.{stage}.block", width, width)
        source |= block
        target |= block
    for stage, width in enumerate((8, 16)):
        source |= linear(f"layers.{stage}.downsample", width * 2, width * 4)
        target |= linear(f"layers.{stage + 1}.downsample", width * 2, width * 4)
    found = inferred(source, target)
    assert renames(found)["layers.0.downsample.weight"] == "layers.1.downsample.weight"
    assert renames(found)["layers.1.downsample.bias"] == "layers.2.downsample.bias"
    assert renames(found)["layers.2.block.weight"] == "layers.2.block.weight"


def test_row_that_becomes_first_middle_and_last() -> None:
    source, target = Listed(), Listed()
    for number, name in enumerate(("proj_in", "layers.0", "proj_out")):
        out = 3 if name == "proj_out" else 8
        source |= linear(f"head.layers.{number}", out, 8)
        target |= linear(f"head.{name}", out, 8)
    found = renames(inferred(source, target))
    assert found["head.layers.0.weight"] == "head.proj_in.weight"
    assert found["head.layers.1.weight"] == "head.layers.0.weight"


def test_words_of_the_sure_are_learned_for_the_others() -> None:
    source, target = Listed(), Listed()
    for stage, width in (("entry", 8), ("middle", 16), ("top", 32)):
        for old, new in (("conv", "zorp"), ("norm", "meki")):
            shape = (width, 3, 3, 3) if old == "conv" else (width,)
            source[f"s.{stage}.{old}.weight"] = shape
            target[f"s.{stage}.{new}.weight"] = shape
    source |= {"end.conv.weight": (5,), "end.norm.weight": (5,)}
    target |= {"end.meki.weight": (5,), "end.zorp.weight": (5,)}
    found = inferred(source, target)
    assert renames(found)["end.conv.weight"] == "end.zorp.weight"
    assert confidences(found)["end.conv.weight"] is Confidence.LIKELY


def test_buffer_that_one_side_lacks_is_dropped() -> None:
    source = linear("a", 4, 4) | {"attn.relative_position_index": (9, 9)}
    assert inferred(source, linear("b", 4, 4)).dropped == ("attn.relative_position_index",)
    target = linear("b", 4, 4) | {"bn.num_batches_tracked": ()}
    assert inferred(linear("a", 4, 4), target).missing == ("bn.num_batches_tracked",)


def test_integers_and_floats_do_not_become_each_other() -> None:
    found = infer(entries({"a": (3, 4)}, "int64"), entries({"a": (3, 4)}, "float32"))
    assert (found.dropped, found.missing) == (("a",), ("a",))
    cast = infer(entries({"a": (3, 4)}, "bfloat16"), entries({"a": (3, 4)}, "float32"))
    assert renames(cast) == {"a": "a"}


def test_fused_tensor_is_split() -> None:
    source = linear("attn.qkv", 12, 4) | linear("attn.proj", 4, 4)
    target = {key: shape for name in ("k", "v", "q", "out")
              for key, shape in linear(f"attn.{name}_proj", 4, 4).items()}  # fmt: skip
    found = inferred(source, target)
    weight = next(each for each in found.operations if each.sources == ("attn.qkv.weight",))
    assert (weight.verb, weight.dim, weight.sizes) == ("split", 0, (4, 4, 4))
    assert weight.targets == tuple(f"attn.{name}_proj.weight" for name in "qkv")
    assert renames(found)["attn.proj.weight"] == "attn.out_proj.weight"


def test_parts_of_one_tensor_go_to_siblings() -> None:
    """Three squares that happen to have its size are in three modules."""
    source = {"attn.big.weight": (12, 4)}
    target = {"enc.a.weight": (4, 4), "dec.b.gain": (4, 4), "head.weight": (4, 4)}
    assert not inferred(source, target).operations


def test_parts_of_unequal_size_are_joined() -> None:
    source = {"q_proj.weight": (8, 8), "k_proj.weight": (2, 8), "v_proj.weight": (2, 8)}
    (joined,) = inferred(source, {"qkv.weight": (12, 8)}).operations
    assert (joined.verb, joined.sources) == ("concat", tuple(source))


def test_square_siblings_of_transposed_ones_are_transposed_with_them() -> None:
    names = {"attn.c_attn": (4, 12), "attn.c_proj": (4, 4), "mlp.c_fc": (4, 16)}
    source = {f"h.{i}.{n}.weight": shape for i in range(2) for n, shape in names.items()}
    target = {key: shape[::-1] for key, shape in source.items()}
    source |= {"head.weight": (9, 4)}
    found = inferred(source, target | {"head.weight": (9, 4)})
    assert {each.sources[0] for each in found.operations} == {*target}
    assert {each.verb for each in found.operations} == {"transpose"}
    assert renames(found) == {"head.weight": "head.weight"}


def test_tied_tensor_is_given_twice() -> None:
    found = inferred({"wte.weight": (99, 4)}, {"wte.weight": (99, 4), "lm_head.weight": (99, 4)})
    assert found.renames == {"wte.weight": ["wte.weight", "lm_head.weight"]}


def test_key_that_is_also_a_module() -> None:
    listed = {"a": (1, 2), "a.b": (3, 4), "a.b.c": (5, 6)}
    assert renames(inferred(listed, listed)) == {key: key for key in listed}


PARTS = st.sampled_from(["conv", "norm", "layers.0", "layers.1", "fc1", "attn", "x", "y"])
LEAVES = st.sampled_from(["weight", "bias", "gamma"])
KEYS = st.lists(
    st.tuples(st.lists(PARTS, max_size=3), LEAVES).map(lambda each: ".".join([*each[0], each[1]])),
    min_size=1, max_size=30, unique=True,
)  # fmt: skip
SHAPES = st.sampled_from([(4,), (4, 4), (8, 4), (4, 8), (12, 4), (), (3, 3, 3, 3)])


@given(KEYS, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_digests_find_any_rename(keys: list[str], rng: Random, meaningless: bool) -> None:
    parts = [*dict.fromkeys(part for key in keys for part in key.split("."))]
    rng.shuffle(parts)
    new_of = {
        key: f"t{number * 7919 % 1009}" if meaningless
        else ".".join(f"n{parts.index(part)}" for part in key.split("."))
        for number, key in enumerate(keys)
    }  # fmt: skip
    source = [TensorEntry(key, "float32", (4, 4), digest=f"sha256:{key}") for key in keys]
    target = [
        TensorEntry(new, "float32", (4, 4), digest=f"sha256:{old}") for old, new in new_of.items()
    ]
    rng.shuffle(target)
    found = infer(source, target)
    assert renames(found) == new_of
    assert {*confidences(found).values()} <= {Confidence.CERTAIN}


def test_equal_bytes_are_told_apart_by_what_stands_beside_them() -> None:
    """Fresh norms hold ones and zeros; each block's are found by its weight."""
    digests = {"fc.weight": None, "fc.bias": "zeros"}
    source, target = [], []
    for number in range(6):
        for leaf, digest in digests.items():
            same = {"digest": digest or f"w{number}"}
            source.append(TensorEntry(f"blocks.{number}.{leaf}", "float32", (4,), **same))
            target.append(TensorEntry(f"t{(number * 5) % 6}x.{leaf}", "float32", (4,), **same))
    found = renames(infer(source, target[::-1]))
    assert found == {
        f"blocks.{number}.{leaf}": f"t{(number * 5) % 6}x.{leaf}"
        for number in range(6)
        for leaf in digests
    }


@given(
    st.dictionaries(KEYS.map(lambda keys: keys[0]), SHAPES, max_size=25),
    st.dictionaries(KEYS.map(lambda keys: keys[0]), SHAPES, max_size=25),
    st.sampled_from(["float32", "int64"]),
)
@settings(max_examples=examples(150), deadline=None)
def test_every_key_is_accounted_for(source: Listed, target: Listed, dtype: str) -> None:
    before, after = entries(source), entries(target, dtype)
    obeys(infer(before, after), before, after)


@given(st.dictionaries(KEYS.map(lambda keys: keys[0]), SHAPES, min_size=1, max_size=25))
@settings(max_examples=examples(100), deadline=None)
def test_the_same_keys_stay(listed: Listed) -> None:
    found = inferred(listed, listed)
    assert all(match.source == match.target for match in found.matches)
    assert not found.dropped
    assert not found.missing
