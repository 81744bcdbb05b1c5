import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import KeyCollisionError, PlanError, UnmatchedRuleError
from ckpt.rules.choice import drop
from ckpt.rules.document import read_rules
from ckpt.rules.key_map import KeyMap, key_map
from ckpt.rules.plan import Dropped, KeyChange, plan_tensors
from ckpt.rules.substitution import parse_rule
from ckpt.tensors import TensorEntry
from tests.rules.support import plan_renames

KEYS = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias"]


def plan(keys: list[str], *rules: str):
    return plan_renames(keys, [parse_rule(rule) for rule in rules])


def test_plan_keeps_order_and_says_which_rules_changed_a_key() -> None:
    made = plan(KEYS, "conv->embed", "embed1->first")
    assert [change.new for change in made.changes] == [
        "first.weight", "first.bias", "embed2.weight", "embed2.bias", "fc1.weight", "fc1.bias",
    ]  # fmt: skip
    assert [change.rules for change in made.changes] == [(1, 2), (1, 2), (1,), (1,), (), ()]
    assert len(made.renamed) == 4


def test_two_keys_onto_one_name_are_shown_with_the_rule_that_helps() -> None:
    with pytest.raises(KeyCollisionError) as caught:
        plan(KEYS, r"conv\d->block")
    assert str(caught.value) == (
        "two keys would become 'block.weight': conv1.weight (rule 1) and conv2.weight (rule 1)"
    )
    assert caught.value.hint == r"keep the number:  --rule 'conv(\d)->block{1}'"
    assert caught.value.exit_code == 3


def test_collision_with_an_untouched_key_is_refused() -> None:
    with pytest.raises(KeyCollisionError, match=r"LayerNorm.weight \(unchanged\)"):
        plan(["LayerNorm.weight", "LayerNorm.gamma"], "gamma$->weight")


def test_swap_by_rules_collides_and_by_a_map_works() -> None:
    with pytest.raises(KeyCollisionError) as caught:
        plan(["a.w", "b.w"], "a->b", "b->a")
    assert "--map" in str(caught.value.hint)
    swapped = plan_renames(["a.w", "b.w"], [KeyMap("swap", {"a": "b", "b": "a"})])
    assert swapped.new_keys == {"a.w": "b.w", "b.w": "a.w"}


def test_rule_that_matches_nothing_shows_the_nearest_keys() -> None:
    with pytest.raises(UnmatchedRuleError) as caught:
        plan(KEYS, "conv->embed", "fc3->head")
    assert str(caught.value) == "rule 2 'fc3->head' changes none of the 6 keys"
    assert "fc1.weight" in str(caught.value.hint)


def test_nearest_keys_are_shown_by_as_many_parts_as_were_asked_for() -> None:
    keys = [
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.1.attention.self.query.weight",
        "head.w",
    ]
    with pytest.raises(UnmatchedRuleError) as caught:
        plan(keys, "encoder.layers->x")
    assert caught.value.hint == "nearest keys: encoder.layer.0.attention.self.query.weight"
    with pytest.raises(UnmatchedRuleError) as caught:
        plan(keys, "zzzzzzzz->x")
    assert caught.value.hint is None
    with pytest.raises(UnmatchedRuleError) as caught:
        plan([f"layer_conv{i}" for i in range(9)], "layer_konv1->x")
    assert str(caught.value.hint).startswith("nearest keys: layer_conv1, ")
    assert str(caught.value.hint).count(",") == 2


@pytest.mark.parametrize(
    ("keys", "rules", "says", "hint"),
    [
        (["h.0.w", "h.1.w"], [r"h\.\d+->block"], "h.0.w (rule 1) and h.1.w (rule 1)",
         r"keep the number:  --rule 'h\.(\d+)->block{1}'"),
        (["h0.w", "h1.w"], [r"h\d->xh"], "h0.w (rule 1) and h1.w (rule 1)",
         r"keep the number:  --rule 'h(\d)->xh{1}'"),
        (["a.w", "b.w"], ["[ab]->x"], "a.w (rule 1) and b.w (rule 1)", None),
        (["a1.w", "b1.w"], [r"[ab]\d->x"], "a1.w (rule 1) and b1.w (rule 1)", None),
        (["a1.w", "a2.w"], [r"a(\d)->x"], "a1.w (rule 1) and a2.w (rule 1)", None),
        (["a1.w", "a2.w", "b.w"], ["b->c", r"a\d->x"], "a1.w (rule 2) and a2.w (rule 2)",
         r"keep the number:  --rule 'a(\d)->x{1}'"),
        (["a1.w", "a2.w", "b.w"], [r"a\d->x", "x->y", "b->c"],
         "a1.w (rules 1, 2) and a2.w (rules 1, 2)",
         r"keep the number:  --rule 'a(\d)->x{1}'"),
        (["a.w", "b.w"], ["a->c", "b->c"], "a.w (rule 1) and b.w (rule 2)",
         "rules apply one after the other; --map FILE applies all at once, so that swaps work"),
        (["a1.w", "a2.w"], [r"a\d->x", r"x\d?->z"],
         "a1.w (rules 1, 2) and a2.w (rules 1, 2)",
         "rules apply one after the other; --map FILE applies all at once, so that swaps work"),
        (["a.w", "b.w"], ["b->a"], "a.w (unchanged) and b.w (rule 1)", None),
    ],
)  # fmt: skip
def test_collision_says_who_made_it_and_a_way_out_that_works(
    keys: list[str], rules: list[str], says: str, hint: str | None
) -> None:
    with pytest.raises(KeyCollisionError) as caught:
        plan(keys, *rules)
    assert str(caught.value).endswith(f": {says}")
    assert caught.value.hint == hint
    if hint and "'" in hint:
        better = hint.split("'")[1]
        plan(keys, *(better if r"\d" in rule else rule for rule in rules))


def test_way_out_is_shown_only_of_rules_that_rename() -> None:
    with pytest.raises(KeyCollisionError) as caught:
        plan_renames(["h1", "h2", "c"], [drop("c"), parse_rule(r"h\d->x")])
    assert caught.value.hint is not None
    assert "--map" in caught.value.hint
    with pytest.raises(KeyCollisionError, match=r"a \(names\) and b \(unchanged\)"):
        plan_renames(["a", "b"], [KeyMap("names", {"a": "b"})])


def test_map_line_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UnmatchedRuleError, match="'conv9' is not one of the 6 keys"):
        plan_renames(KEYS, [KeyMap("names.json", {"conv1": "a", "conv9": "b"})])


@pytest.mark.parametrize("rule", ["conv1[.]->.", r"weight$->.", r"\.->.."])
def test_empty_part_is_refused(rule: str) -> None:
    with pytest.raises(PlanError, match="has an empty part"):
        plan(KEYS, rule)


def test_empty_part_that_was_there_before_may_stay() -> None:
    assert plan(["a..b", "c"], "c->d").new_keys == {"a..b": "a..b", "c": "d"}
    assert plan(["a..b"], "a->d").new_keys == {"a..b": "d..b"}


def test_aliases_follow_what_gives_names_and_nothing_else() -> None:
    entries = [TensorEntry("a.w", "float32", (2, 3)), TensorEntry("b.w", "float32", (2, 3))]
    rules = read_rules(
        [{"rename": "a->x"}, {"drop": "b"}, {"transpose": "w"}, {"strip": "c."}], name="rules"
    )
    made = plan_tensors(entries, rules, aliases=["a.tied", "c.tied", "b.tied"])
    assert made.aliases == {"a.tied": "x.tied", "c.tied": "tied"}
    assert [each.key for each in made.tensors] == ["x.w"]
    assert made.dropped == (Dropped("b.w", 2),)
    with pytest.raises(KeyCollisionError, match=r"'x\.w'"):
        plan_tensors(entries, [parse_rule("a->x")], aliases=["x.w"])


def test_no_keys_and_no_rules_are_an_empty_plan() -> None:
    assert plan_renames([], []).tensors == ()
    assert plan(["a"]).changes == (KeyChange("a", "a"),)
    assert plan(["a"]).is_rename
    assert plan(["a"]).touched(1) == 0


def test_drop_names_what_is_in_no_tensor_of_the_result() -> None:
    entries = [TensorEntry("q", "float32", (2,)), TensorEntry("k", "float32", (2,))]
    rules = read_rules(
        [{"concat": ["q", "k"], "into": "qk"}, {"duplicate": "qk", "into": ["x", "y"]},
         {"drop": "x"}, {"split": "y", "into": ["a", "b"]}, {"drop": "b"}],
        name="rules",
    )  # fmt: skip
    made = plan_tensors(entries, rules)
    assert made.dropped == ()
    assert made.touched(5) == 0
    assert [each.rules for each in made.tensors] == [(1, 2, 4)]


def test_map_prefers_the_whole_key_then_the_longest_module() -> None:
    names = key_map({"a": "x", "a.b": "y", "a.b.bias": "z"}, name="names.json")
    keys = ["a.weight", "a.b.weight", "a.b.bias", "ab.weight"]
    assert [names.apply(key) for key in keys] == ["x.weight", "y.weight", "z", "ab.weight"]


names = st.lists(
    st.text("ab.", min_size=1, max_size=6).filter(lambda key: "" not in key.split(".")),
    unique=True,
    min_size=1,
    max_size=8,
)


@given(names, names)
def test_plan_is_a_bijection_or_an_error(keys: list[str], words: list[str]) -> None:
    try:
        made = plan(keys, *(f"{word.replace('.', '[.]')}->{word[::-1]}c" for word in words))
    except PlanError:
        return
    assert [change.old for change in made.changes] == keys
    assert len(set(made.new_keys.values())) == len(keys)


@given(names, st.permutations(range(8)))
def test_any_permutation_can_be_mapped_and_mapped_back(keys: list[str], order: list[int]) -> None:
    targets = [keys[i] for i in order if i < len(keys)]
    there = dict(zip(keys, targets, strict=True))
    back = {new: old for old, new in there.items()}
    moved = plan_renames(keys, [KeyMap("there", there)]) if keys != targets else None
    if moved is None:
        return
    landed = [change.new for change in moved.changes]
    again = plan_renames(landed, [KeyMap("back", back)])
    assert [change.new for change in again.changes] == keys
