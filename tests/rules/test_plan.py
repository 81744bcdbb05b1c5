import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import KeyCollisionError, PlanError, UnmatchedRuleError
from ckpt.infer.rules.suggest import suggest_rules
from ckpt.rules.key_map import KeyMap, key_map
from ckpt.rules.plan import plan_renames
from ckpt.rules.substitution import parse_rule

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


def test_map_line_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UnmatchedRuleError, match="'conv9' is not one of the 6 keys"):
        plan_renames(KEYS, [KeyMap("names.json", {"conv1": "a", "conv9": "b"})])


@pytest.mark.parametrize("rule", ["conv1[.]->.", r"weight$->.", r"\.->.."])
def test_empty_part_is_refused(rule: str) -> None:
    with pytest.raises(PlanError, match="has an empty part"):
        plan(KEYS, rule)


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


@pytest.mark.parametrize(
    ("pairs", "rules"),
    [
        ([("conv1.weight", "embed1.weight"), ("conv2.bias", "embed2.bias")], []),
        (
            [(key, key.replace("conv", "embed")) for key in KEYS if "conv" in key],
            ["conv->embed"],
        ),
        (
            [(key, key.replace("conv", "embded_")) for key in KEYS if "conv" in key],
            ["conv->embded_"],
        ),
        ([(key, f"net.{key}") for key in KEYS], ["^(.+)->net.{1}"]),
        ([("fc1.weight", "conv.weight"), ("fc1.bias", "other.bias")], ["fc1->conv", "fc1->other"]),
    ],
    ids=["not all of a kind", "one word", "another spelling", "prefix added", "undecidable"],
)
def test_suggested_rules_do_exactly_what_was_asked(
    pairs: list[tuple[str, str]], rules: list[str]
) -> None:
    found = suggest_rules(KEYS, pairs)
    assert [rule.text for rule in found] == (rules if len(rules) == 1 else [])
    if found:
        renamed = plan_renames(KEYS, found).renamed
        assert [(change.old, change.new) for change in renamed] == pairs


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net."])
def test_wrapper_is_suggested_to_be_cut_off(prefix: str) -> None:
    wrapped = [prefix + key for key in KEYS]
    (rule,) = suggest_rules(wrapped, zip(wrapped, KEYS, strict=True))
    assert [rule.apply(key) for key in wrapped] == KEYS
    assert rule.text == f"^{prefix.replace('.', '[.]')}(.+)->{{1}}"
