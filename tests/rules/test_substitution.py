import pytest

from ckpt.errors import RuleError
from ckpt.rules.plan import plan_renames
from ckpt.rules.substitution import parse_rule


@pytest.mark.parametrize(
    ("text", "key", "new"),
    [
        ("conv->embed", "conv1.weight", "embed1.weight"),
        ("conv=embed", "conv1.weight", "embed1.weight"),
        ("conv=>embed", "conv1.weight", "embed1.weight"),
        ("a->b", "a.a.weight", "b.b.weight"),
        (r"layers\.(\d+)->blocks.{1+1}", "layers.9.q", "blocks.10.q"),
        (r"up\.(\d+)->up.{-1+3}", "up.0.w", "up.3.w"),
        (r"h\.(\d+)->layers.\1", "h.11.w", "layers.11.w"),
        (r"h\.(?P<i>\d+)->layers.\g<i>", "h.11.w", "layers.11.w"),
        (r"^module\.(.+)->{1}", "module.fc.weight", "fc.weight"),
        ("(?<=fc)1=9", "fc1.bias", "fc9.bias"),
        ("nothing->here", "fc1.bias", "fc1.bias"),
    ],
)
def test_rule_applied_to_a_key(text: str, key: str, new: str) -> None:
    assert parse_rule(text).apply(key) == new


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("conv1.weight", "embed1.weight"),
        ("net.conv.weight", "net.embed.weight"),
        ("deconv1.weight", "deconv1.weight"),
        ("conv_out.weight", "conv_out.weight"),
    ],
)
def test_word_matches_whole_parts_and_their_number(key: str, new: str) -> None:
    assert parse_rule("conv->embed", word=True).apply(key) == new


def test_literal_takes_both_sides_as_they_are() -> None:
    rule = parse_rule(r"fc.1->a\1{1}", literal=True)
    assert rule.apply("fcx1.w") == "fcx1.w"
    assert rule.apply("fc.1.w") == r"a\1{1}.w"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("conv", "has no arrow"),
        ("conv->", "nothing after the arrow"),
        ("->embed", "nothing before the arrow"),
        ("a->b->c", "has 2 arrows"),
        ("(->b", "not a valid regular expression"),
        (r"a->\1", "uses group 1, its pattern has 0"),
        ("a->{1}", "uses group 1, its pattern has 0"),
        (r"(a)->\g<x>", "uses group x"),
        ("a->{b}", "does not begin a group"),
    ],
)
def test_rule_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(RuleError, match=r".") as caught:
        parse_rule(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [(r"l(\w)->{1+1}", "which is not a number"), (r"l(\d)->{1-2}", "an index cannot be negative")],
)
def test_arithmetic_that_gives_no_index_is_refused(text: str, says: str) -> None:
    key = "lx" if "w" in text else "l1"
    with pytest.raises(RuleError) as caught:
        parse_rule(text).apply(key)
    assert says in str(caught.value)


def test_fault_25_pattern_that_explodes_is_stopped() -> None:
    with pytest.raises(RuleError, match="took over"):
        parse_rule("(a+)+$->b").apply("a" * 100_000 + "!")


def test_fault_25_result_that_explodes_is_refused() -> None:
    with pytest.raises(RuleError, match="makes a key of"):
        parse_rule("a->" + "b" * 1000).apply("a" * 1000)


def test_fault_25_pattern_that_is_slow_on_every_key_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each key is below the limit for one; all of them together would take hours."""
    monkeypatch.setattr("ckpt.rules.patterns.SLOW_SECONDS", 0.5)
    keys = [f"{number}.{'a' * 20}!" for number in range(100_000)]
    with pytest.raises(RuleError, match=r"took over 0\.5 s"):
        plan_renames(keys, [parse_rule("(a|a?a)+$->b")])


def test_long_key_that_stays_is_no_reason_to_refuse() -> None:
    plan = plan_renames(["a" * 70_000, "conv"], [parse_rule("conv->embed")])
    assert plan.tensors[1].key == "embed"
    with pytest.raises(RuleError, match="makes a key of over"):
        plan_renames(["a" * 60_000], [parse_rule("a->" + "b" * 60_000)])
