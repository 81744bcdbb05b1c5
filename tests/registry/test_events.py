"""Laws of the history of a model: a set of events that any two branches join to the same one."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IndexDamageError
from ckpt.io import digest
from ckpt.registry import events
from ckpt.registry.events import KEPT, Event, joined
from ckpt.registry.history.newest import newest
from ckpt.registry.index import Index
from ckpt.registry.index_file import parse_index
from ckpt.registry.merge import merged
from tests.registry.test_index import version

ANN = {"author": "Ann <ann@example.org>", "host": "a"}
BASE = Index().with_version(version(1)).with_version(version(2))


def event(at: int, did: str = "alias", **fields: object) -> Event:
    when = f"2026-11-30T10:{at // 60:02}:{at % 60:02}.000000+00:00"
    return Event(at=when, did=did, by=ANN, **fields)  # type: ignore[arg-type]


def draws(seed: int) -> list[Event]:
    """Events of which several have one time, and some are equal."""
    draw = random.Random(seed)
    return [
        event(draw.randrange(9), draw.choice(["alias", "tag", *KEPT]), text=draw.choice("ab"))
        for _ in range(draw.randrange(12))
    ]


def keys(history: tuple[Event, ...]) -> list[str]:
    return [events._text(each) for each in history]


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 1000]))
def test_join_is_commutative_associative_and_idempotent(seed: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "MOST_CHANGES", most)
        a, b, c = (joined(draws(seed + part)) for part in range(3))
        assert joined(a, b) == joined(b, a)
        assert joined(joined(a, b), c) == joined(a, joined(b, c))
        assert joined(a, a) == a == joined(a, ())
        words = {text for text in (*keys(a), *keys(b)) if json.loads(text)["did"] in KEPT}
        result = joined(a, b)
        assert words <= {*keys(result)}, "no note, metric or signature is left out"
        assert sum(each.did not in KEPT for each in result) <= most
        if most == 1000:
            assert {*keys(result)} == {*keys(a), *keys(b)}
        assert [each.at for each in result] == sorted(each.at for each in result)


@given(st.integers(0, 2**32))
def test_merge_has_the_history_of_both_sides_whichever_is_ours(seed: int) -> None:
    base, ours, theirs = (draws(seed + part) for part in range(3))
    sides = [
        BASE.with_model(replace(BASE.model(None), log=joined(base, side)))
        for side in ((), ours, theirs)
    ]
    one, other = merged(*sides).index, merged(sides[0], sides[2], sides[1]).index
    assert one.model(None).log == other.model(None).log == joined(base, ours, theirs)
    assert merged(sides[0], one, sides[2]).index.model(None).log == one.model(None).log
    assert parse_index(one.to_text(), name="x") == one


def test_event_of_a_newer_ckpt_is_kept_whole() -> None:
    document = json.loads(BASE.to_text())
    line = {"at": "2026-11-30T10:00:00Z", "did": "seal", "by": {**ANN, "key": "k"}, "seal": [1]}
    document["models"]["mnist-cnn"]["log"] = [line]
    index = parse_index(json.dumps(document), name="x")
    assert json.loads(index.to_text())["models"]["mnist-cnn"]["log"] == [line]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("at", "yesterday", "log[0].at: expected a time like"),
        ("by", None, "log[0].by: expected an object"),
        ("by", {"author": "a"}, "log[0].by.host: missing"),
        ("version", "prod", "log[0].version: expected a version like v3"),
        ("name", "a\nb", "log[0].name: expected a name"),
        ("manifest", "sha256:0", "log[0].manifest: expected a digest"),
        ("metrics", {"a": "high"}, "log[0].metrics.a: expected a number"),
    ],
)
def test_malformed_event_is_refused_by_its_place(field: str, value: object, says: str) -> None:
    document = json.loads(BASE.to_text())
    line = {"at": "2026-11-30T10:00:00Z", "did": "note", "by": ANN, field: value}
    document["models"]["mnist-cnn"]["log"] = [line]
    with pytest.raises(IndexDamageError) as refused:
        parse_index(json.dumps(document), name="x")
    assert says in str(refused.value)


def test_newest_value_of_a_metric_counts_whichever_manifest_it_was_given_to() -> None:
    one, two = (digest.of_bytes(name) for name in (b"one", b"two"))
    line = replace(version(1), manifest=one, also=(two,), metrics={"accuracy": 0.1, "loss": 3.0})
    log = (
        event(1, "metric", manifest=two, metrics={"accuracy": 0.3}),
        event(2, "metric", manifest=one, metrics={"accuracy": 0.2}),
        event(3, "metric", manifest=version(2).manifest, metrics={"accuracy": 0.9}),
    )
    index = Index().with_version(line)
    index = index.with_model(replace(index.model(None), log=log))
    assert newest(index, line).metrics == {"accuracy": 0.2, "loss": 3.0}
