"""The rules of a mapping: few, readable, and exact."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.infer.rules.synthesis import count_rules, proves, synthesise
from ckpt.rules.at_once import AtOnce
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.key_map import KeyMap
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry
from tests.effort import examples


def entries(keys: list[str]) -> list[TensorEntry]:
    return [TensorEntry(key, "float32", (4, 4)) for key in keys]


def rules_of(pairs: dict[str, str | None]) -> list[Rule]:
    """Of a mapping of old to new keys; None drops."""
    matches = tuple(
        Match(old, new, Confidence.LIKELY, 1.0) for old, new in pairs.items() if new is not None
    )
    dropped = tuple(old for old, new in pairs.items() if new is None)
    wanted = Inference(matches, (), dropped, ())
    source = entries([*pairs])
    target = entries([match.target for match in matches])
    rules = synthesise(source, target, wanted)
    assert proves(source, target, rules, wanted)
    document = rules_document(rules)
    if rules:
        assert rules_document(read_rules(document, name="again")) == document
    return rules


def texts(pairs: dict[str, str | None]) -> list[str]:
    found: list[str] = []
    for rule in rules_of(pairs):
        found += [each.text for each in rule.rules] if isinstance(rule, AtOnce) else [rule.text]
    return found


def test_no_rule_for_what_stays() -> None:
    assert texts({"a.weight": "a.weight", "b": "b"}) == []


def test_one_rule_for_all_layers() -> None:
    pairs = {
        f"encoder.layer.{i}.attention.self.query.{leaf}": f"blocks.{i}.attn.q.{leaf}"
        for i in range(12)
        for leaf in ("weight", "bias")
    }
    assert len(rules_of(pairs)) <= 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pairs", "rules"),
    [
        ({"conv1.weight": "embed1.weight", "conv2.weight": "embed2.weight", "fc.bias": "fc.bias"},
         ["conv->embed"]),
        ({"module.a": "a", "module.b.c": "b.c"}, ["strip module."]),
        ({"a": "model.a", "b.c": "model.b.c"}, ["add model."]),
        ({"ln.gamma": "ln.weight", "ln.beta": "ln.bias"}, ["gamma->weight", "beta->bias"]),
        ({f"block{i}.x": f"block.{i - 1}.x" for i in range(1, 5)}, [r"block(\d+)->block.{1-1}"]),
        ({"a.attn": "a.attn2", "a.cross_attn": "a.cross_attn"}, [r"\battn->attn2"]),
        ({"a.mask": None, "b.mask": None, "b.w": "b.w"}, ["drop 'mask$'"]),
    ],
    ids=["digits", "strip", "add", "leaves", "glued", "word", "drop"],
)  # fmt: skip
def test_rule_is_what_a_person_would_type(pairs: dict[str, str | None], rules: list[str]) -> None:
    assert texts(pairs) == rules


def test_chain_that_shifts_goes_at_once() -> None:
    pairs = {f"l.{old}.w": f"{new}.w" for old, new in
             enumerate(("proj_in", "l.0", "l.1", "proj_out"))}  # fmt: skip
    assert count_rules(rules_of(pairs)) <= 4  # type: ignore[arg-type]


def test_swap() -> None:
    assert count_rules(rules_of({"a.w": "b.w", "b.w": "a.w"})) == 2


@pytest.mark.parametrize("odd", ["a->b", "a=b", "a{1}", "a\\1", "a b", "ä.é", "a..b", ".a", "a."])
def test_odd_keys_get_rules_or_a_map(odd: str) -> None:
    rules_of({odd: odd + "x", "plain": "other"})


def test_dropped_key_that_two_patterns_find_is_dropped_once() -> None:
    """A second rule that finds nothing more would be refused."""
    rules_of({"a1.b.b": "a1.b.b.x", "b.a1.b": None, "a1.b": None})


PART = st.sampled_from(["conv", "conv1", "conv2", "norm", "layers", "0", "1", "2", "attn", "in"])
PATHS = st.lists(PART, min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(PATHS, st.booleans(), min_size=1, max_size=20), st.randoms())
@settings(max_examples=examples(60), deadline=None)
def test_rules_reproduce_any_mapping(keys: dict[str, bool], rng: Random) -> None:
    kept = [key for key, stays in keys.items() if stays] or [next(iter(keys))]
    news = [f"{key}.{rng.choice('xy')}" if rng.random() < 0.5 else key for key in kept]
    rng.shuffle(news)
    if len({*news}) == len(news):
        new_of = dict(zip(kept, news, strict=True))
        rules_of({key: new_of.get(key) for key in keys})


def test_part_of_a_split_may_have_the_old_name_of_another_tensor() -> None:
    source = [TensorEntry("a.qkv", "float32", (12, 4)), TensorEntry("a.q", "float32", (4, 4))]
    target = entries(["a.q", "a.k", "a.v", "b.q"])
    split = InferredOperation(
        "split", ("a.qkv",), ("a.q", "a.k", "a.v"), Confidence.LIKELY, 1.0, sizes=(4, 4, 4)
    )
    match = Match("a.q", "b.q", Confidence.LIKELY, 1.0)
    wanted = Inference((match,), (split,), (), ())
    rules = synthesise(source, target, wanted)
    assert proves(source, target, rules, wanted)
    assert rules_document(read_rules(rules_document(rules), name="again")) == rules_document(rules)


def test_mapping_without_a_pattern_becomes_a_map_of_modules() -> None:
    rng = Random(0)
    names = [f"m{n}" for n in range(60)]
    news = [f"{''.join(rng.choices('abcdefgh', k=8))}" for _ in names]
    pairs = {
        f"{old}.{leaf}": f"{new}.{leaf}"
        for old, new in zip(names, news, strict=True)
        for leaf in ("conv.weight", "conv.bias", "norm.weight")
    }
    (rule,) = rules_of(pairs)  # type: ignore[arg-type]
    assert isinstance(rule, KeyMap)
    assert rule.pairs == dict(zip(names, news, strict=True))


SEPARATED = st.lists(
    st.sampled_from(["conv", "norm_out", "down_blocks_1", "0", "11", "w2", "x_3_y", "a/b"]),
    min_size=1, max_size=4,
).map(".".join)  # fmt: skip


@given(st.lists(SEPARATED, min_size=1, max_size=16, unique=True), st.randoms())
@settings(max_examples=examples(60), deadline=None)
def test_rules_reproduce_mappings_that_exchange_separators(keys: list[str], rng: Random) -> None:
    news = [
        key.replace("_", ".").replace("/", ".") if rng.random() < 0.8 else f"z.{key}"
        for key in keys
    ]
    if len({*news}) == len(news):
        rules_of(dict(zip(keys, news, strict=True)))


def test_operations_come_before_the_renames() -> None:
    source, target = [], []
    for i in range(3):
        for leaf, width in (("weight", (4,)), ("bias", ())):
            source.append(TensorEntry(f"blocks.{i}.attn.qkv.{leaf}", "float32", (12, *width)))
            source.append(TensorEntry(f"blocks.{i}.attn.proj.{leaf}", "float32", (4, *width)))
            target += (
                TensorEntry(f"layers.{i}.self_attn.{name}.{leaf}", "float32", (4, *width))
                for name in ("query", "key", "value", "out_proj")
            )
    found = infer(source, target)
    rules = synthesise(source, target, found)
    assert proves(source, target, rules, found)
    assert len(found.operations) == 6
    assert count_rules(rules) <= 4
