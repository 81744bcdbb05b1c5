from collections.abc import Callable
from itertools import count
from time import sleep

import pytest

from ckpt.errors import RuleError
from ckpt.rules.at_once import parse_swap
from ckpt.rules.patterns import Match, Pattern
from ckpt.rules.substitution import parse_rule
from tests.rules.support import plan_renames


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
        (r"h\.(\d+)->l.{1-1}", "h.1.w", "l.0.w"),
        (r"h\.(\d+)->l.{-1+12}", "h.11.w", "l.1.w"),
        (r"h\.(\d+)->l.{-1}", "h.0.w", "l.0.w"),
        (r"(\d)\.(\d)->{2}.{1+10}", "1.2.w", "2.11.w"),
        (r"h\.(?P<i>\d+)->l.\g<1>", "h.11.w", "l.11.w"),
        (r"a(b)?->x\1", "a.w", "x.w"),
        (r"h\.(\d+)->l.\g<001>", "h.11.w", "l.11.w"),
        (r"h(\d+)->l{1+0}", "h999999999999999999", "l999999999999999999"),
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


@pytest.mark.parametrize(
    ("new", "found", "meant"),
    [
        ("attn.$1", "$1", r"attn.\1"),
        ("attn.${1}x.$2", "${1}", r"attn.\1x.\2"),
        (r"\1.$2", "$2", r"\1.\2"),
    ],
)
def test_group_with_a_dollar_is_named(new: str, found: str, meant: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(rf"(a)_(b)->{new}")
    number = found.strip("${}")
    assert str(caught.value) == f"rule '(a)_(b)->{new}': '{found}' in '{new}' is not a group"
    assert caught.value.hint == rf"write \{number} or {{{number}}}:  {meant}"


@pytest.mark.parametrize("text", ["a->$1", "(a)->$2", "(a)->b$", r"(a)$->\1$x"])
def test_dollar_that_is_no_group_is_text(text: str) -> None:
    assert parse_rule(text).apply("a") == text.partition("->")[2].replace(r"\1", "a")


def test_literal_takes_both_sides_as_they_are() -> None:
    assert parse_rule("(a)->$1", literal=True).apply("(a)") == "$1"
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
        (r"a->b\\", "does not begin a group"),
        (r"(a)->\0", "uses group 0, its pattern has 1"),
        (r"(a)->\2", "uses group 2, its pattern has 1"),
        (r"(a)->{2+1}", "uses group 2, its pattern has 1"),
        (r"(a)->\g<0001>", "uses group 0001, its pattern has 1"),
        ("a=b=c", "has 2 arrows"),
    ],
)
def test_rule_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(RuleError, match=r".") as caught:
        parse_rule(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r"l(\w)->{1+1}", "which is not a number"),
        (r"l(\d)->{1-2}", "turns 1 into -1; an index cannot be negative"),
        (r"l(\d)->{-1}", "turns 1 into -1; an index cannot be negative"),
        (r"l(x)?->{1+1}", "arithmetic on '', which is not a number"),
    ],
)
def test_arithmetic_that_gives_no_index_is_refused(text: str, says: str) -> None:
    key = "lx" if "w" in text else "l1"
    with pytest.raises(RuleError) as caught:
        parse_rule(text).apply(key)
    assert says in str(caught.value)


def test_fault_25_pattern_that_explodes_is_stopped() -> None:
    with pytest.raises(RuleError, match=r"took over 0\.5 s on a key of 100,001 characters"):
        parse_rule("(a+)+$->b").apply("a" * 100_000 + "!")


def test_fault_25_result_that_explodes_is_refused() -> None:
    with pytest.raises(RuleError, match="makes a key of"):
        parse_rule("a->" + "b" * 1000).apply("a" * 1000)


@pytest.mark.long
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


def test_number_of_more_than_18_digits_is_none() -> None:
    with pytest.raises(
        RuleError, match="arithmetic on '1111111111111111111', which is not a number"
    ):
        parse_rule(r"h(\d+)->l{1+0}").apply("h" + "1" * 19)


@pytest.mark.parametrize(("text", "key"), [("a->bb", "a"), ("a<->bb", "a")])
def test_key_of_65_536_letters_is_the_longest_that_a_rule_makes(text: str, key: str) -> None:
    rule = parse_swap(text) if "<" in text else parse_rule(text)
    assert len(rule.apply(key * 32_768)) == 65_536
    with pytest.raises(RuleError, match=r"makes a key of over 65,536 characters"):
        rule.apply(key * 32_769)


@pytest.mark.parametrize(
    ("text", "key", "applied"),
    [
        ("layers->encoder.layers", "encoder.layers.0", True),
        ("layers->encoder.layers", "encoder.layers.0.encoder.layers", True),
        ("layers->encoder.layers", "encoder.layers.0.layers", False),
        ("layers->encoder.layers", "layers.0.encoder.layers", False),
        ("layers->encoder.layers", "layers", False),
        ("a->ab", "ab", True),
        ("a->ab", "a", False),
        ("a->b", "a", False),
        ("a->b", "c", True),
        (r"(\d)->1\1", "13", False),
        ("^->x.", "x.a", True),
        ("^->x.", "a", False),
    ],
)
def test_rule_was_applied_if_each_match_stands_in_what_it_makes(
    text: str, key: str, applied: bool
) -> None:
    assert parse_rule(text).is_applied(key) == applied


def test_search_begins_where_it_is_told() -> None:
    rule = parse_rule("a->b")
    found = [rule.search("a.a", position) for position in range(4)]
    assert [match and match.start() for match in found] == [0, 2, 2, None]


@pytest.fixture
def each_key_takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock by which every key takes as many seconds as the test says."""

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr("ckpt.rules.patterns.thread_time", count(0.0, seconds).__next__)

    return set_clock


def test_slow_keys_get_ten_seconds_together(each_key_takes: Callable[[float], None]) -> None:
    each_key_takes(1.0)
    rule = parse_rule("a->b")
    assert [rule.apply("a") for _ in range(10)] == ["b"] * 10
    with pytest.raises(RuleError, match=r"(?m)^rule 'a->b' took over 10 s$"):
        rule.apply("a")


def test_time_that_others_take_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine a quick match may wait for its core as long as a slow one takes."""
    monkeypatch.setattr("ckpt.rules.patterns.SLOW_SECONDS", 0.05)
    pattern = Pattern("a", name="a")

    def waits(_: Match) -> str:
        sleep(0.01)
        return "b"

    assert [pattern.sub(waits, "a") for _ in range(20)] == ["b"] * 20


@pytest.mark.long
def test_time_of_quick_keys_does_not_add_up(each_key_takes: Callable[[float], None]) -> None:
    each_key_takes(0.00005)
    rule = parse_rule("a->b")
    assert all(rule.search("a") for _ in range(250_000))


def test_rule_shows_what_was_typed_when_it_cannot_be_read() -> None:
    with pytest.raises(
        RuleError, match=r"^rule '\(a->b': '\(a' is not a valid regular expression"
    ) as caught:
        parse_rule("(a->b", word=True)
    assert caught.value.hint == "-F treats it as literal text"


def test_rules_are_equal_if_they_were_typed_alike() -> None:
    assert parse_rule("a->b") == parse_rule("a->b")
    assert parse_rule("a->b") != parse_rule("a->b", word=True)
    assert parse_rule("a->b") != parse_rule("a->b", literal=True)
    assert "Pattern" not in repr(parse_rule("a->b"))
