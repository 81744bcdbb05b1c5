"""Rules at once: swaps and chains, which one after the other collide or lose a tensor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import KeyCollisionError, PlanError, RuleError, UnmatchedRuleError
from ckpt.rules.at_once import AtOnce, parse_swap
from ckpt.rules.choice import drop, keep
from ckpt.rules.key_map import KeyMap
from ckpt.rules.plan import Dropped
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap, unwrapped, wrappers_of
from ckpt.rules.substitution import parse_rule
from tests.rules.support import plan_renames


def at_once(*texts: str) -> AtOnce:
    return AtOnce(tuple(map(parse_rule, texts)))


def new_keys(keys: list[str], *rules: Rule | str) -> dict[str, str]:
    made = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    return plan_renames(keys, made).new_keys


def test_swap_is_one_rule() -> None:
    assert new_keys(["a.w", "b.w", "a.b.w"], parse_swap("a<->b")) == {
        "a.w": "b.w", "b.w": "a.w", "a.b.w": "b.a.w",
    }  # fmt: skip


def test_swap_of_words_leaves_longer_ones() -> None:
    keys = ["norm1.w", "norm12.w", "norm2.w"]
    assert new_keys(keys, parse_swap("norm1<->norm2")) == {
        "norm1.w": "norm2.w", "norm12.w": "norm22.w", "norm2.w": "norm1.w",
    }  # fmt: skip
    assert new_keys(["conv.w", "deconv.w", "fc.w"], parse_swap("conv<->fc", word=True)) == {
        "conv.w": "fc.w", "deconv.w": "deconv.w", "fc.w": "conv.w",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a<->", "<->b", "a<->a", "a<->b<->c"])
def test_swap_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="does not swap two names"):
        parse_swap(text)


def test_first_that_matches_takes_the_place_and_no_other_sees_it() -> None:
    group = at_once("ab->b", "a->x", "b->ab")
    assert group.apply("ab.a.b") == "b.x.ab"


def test_groups_and_anchors_look_at_the_key_as_it_was() -> None:
    group = at_once(r"^(\w)\.->{1}0.", r"(?<=\.)(\d+)->{1+1}")
    assert group.apply("h.3.w") == "h0.4.w"


def test_every_rule_of_a_group_must_find_something() -> None:
    with pytest.raises(UnmatchedRuleError, match="'norm9' matches none of the 2 keys"):
        new_keys(["norm1.w", "norm2.w"], at_once("norm1->norm2", "norm2->norm1", "norm9->x"))


def test_group_that_collides_is_refused() -> None:
    with pytest.raises(KeyCollisionError, match=r"'x\.w'"):
        new_keys(["a.w", "b.w"], at_once("a->x", "b->x"))


@given(st.lists(st.text("abc.", min_size=1, max_size=6), unique=True, max_size=6))
def test_swapping_twice_is_the_identity(keys: list[str]) -> None:
    swap = parse_swap("a<->b")
    assert [swap.apply(swap.apply(key)) for key in keys] == keys


@pytest.mark.parametrize(
    ("key", "bare"),
    [
        ("_orig_mod.module.fc.weight", "fc.weight"),
        ("module._orig_mod.fc.weight", "fc.weight"),
        ("model._orig_mod.fc.weight", "model.fc.weight"),
        ("module.module.fc.weight", "fc.weight"),
        ("model.module._orig_mod.fc.weight", "model.fc.weight"),
        ("_fsdp_wrapped_module.h.0._checkpoint_wrapped_module.fc.weight", "h.0.fc.weight"),
        ("encoder.module.fc.weight", "encoder.module.fc.weight"),
        ("n_averaged", "n_averaged"),
        ("module", "module"),
    ],
)
def test_wrappers_come_off_in_any_order(key: str, bare: str) -> None:
    assert unwrapped(key) == bare


@pytest.mark.parametrize(
    ("keys", "bare"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["model.a", "model.b"], ["a", "b"]),
        (["model.a", "other.b", "model.c"], None),
        (["model.a", "ema_model.a"], ["a", "ema_model.a"]),
        (["model.a", "teacher.a"], ["a", "teacher.a"]),
        (["module.a", "n_averaged"], ["a", "n_averaged"]),
        (["module.model.net.a", "module.model.net.b"], ["net.a", "net.b"]),
        (["a", "b"], None),
    ],
    ids=["ddp", "lightning", "no common one", "ema", "teacher", "averaged", "stack", "none"],
)
def test_unwrap_keeps_a_second_copy_apart(keys: list[str], bare: list[str] | None) -> None:
    if bare is None:
        with pytest.raises(UnmatchedRuleError):
            new_keys(keys, Unwrap())
        return
    assert list(new_keys(keys, Unwrap()).values()) == bare


def test_copy_that_would_fall_onto_the_other_is_refused() -> None:
    with pytest.raises(KeyCollisionError):
        new_keys(["module.fc.weight", "fc.weight"], Unwrap())


def test_wrappers_are_said() -> None:
    assert wrappers_of("module._orig_mod.fc.w", "fc.w") == ["module.", "_orig_mod."]
    assert wrappers_of("a.w", "a.w") == []


def test_prefixes() -> None:
    assert new_keys(["module.a", "b"], Strip("module.")) == {"module.a": "a", "b": "b"}
    assert new_keys(["a", "encoder.b"], Add("encoder.")) == {
        "a": "encoder.a", "encoder.b": "encoder.encoder.b",
    }  # fmt: skip
    with pytest.raises(UnmatchedRuleError):
        new_keys(["a"], Strip("module."))
    with pytest.raises(PlanError, match=r"all 2 keys already begin with 'm\.'"):
        new_keys(["m.a", "m.b"], Add("m."))


def test_dropped_tensors_are_named_with_their_rule() -> None:
    keys = ["a.w", "a.mask", "b.w", "b.mask"]
    plan = plan_renames(keys, [parse_rule("^a->x"), drop(r"mask$"), keep(r"^x")])
    assert plan.new_keys == {"a.w": "x.w"}
    assert plan.dropped == (Dropped("a.mask", 2), Dropped("b.mask", 2), Dropped("b.w", 3))
    assert not plan.is_rename
    assert [plan.touched(number) for number in (1, 2, 3)] == [1, 2, 1]
    with pytest.raises(UnmatchedRuleError, match="'zzz' matches none"):
        plan_renames(keys, [drop("zzz")])
    with pytest.raises(RuleError, match="not a valid regular expression"):
        drop("(")


def test_rule_that_was_applied_already_is_noticed() -> None:
    assert new_keys(["layers.0.w"], "layers->encoder.layers") == {
        "layers.0.w": "encoder.layers.0.w"
    }
    with pytest.raises(PlanError, match=r"was already applied: encoder\.layers"):
        new_keys(["encoder.layers.0.w"], "layers->encoder.layers")
    # Some of them new, some of them old: what is asked for is done.
    assert new_keys(["fc1.w", "fc2.w"], "fc->fc1") == {"fc1.w": "fc11.w", "fc2.w": "fc12.w"}
    swap = KeyMap("names.json", {"encoder.layers": "encoder.encoder.layers"})
    assert new_keys(["encoder.layers.0.w"], swap) == {
        "encoder.layers.0.w": "encoder.encoder.layers.0.w"
    }


def test_fault_25_result_of_a_group_that_explodes_is_refused() -> None:
    with pytest.raises(RuleError, match="makes a key of over"):
        parse_swap("a<->" + "b" * 1000).apply("a" * 1000)
