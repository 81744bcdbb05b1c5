import pytest

from ckpt.io.documents.strict_json import parse


def test_plain_json_is_parsed() -> None:
    assert parse('{"a": [1, 2.5, null], "b": {"a": "x"}}') == {"a": [1, 2.5, None], "b": {"a": "x"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' appears twice"),
        ('{"x": {"a": 1, "a": 1}}', "'a' appears twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
        ("\ufeff{}", "BOM"),
    ],
    ids=["twice", "twice inside", "NaN", "infinity", "deep", "cut", "BOM"],
)
def test_what_could_be_meant_in_two_ways_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)
