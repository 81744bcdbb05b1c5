"""The search for tensors, and what is shown of a pickle, at their limits."""

import pytest
import torch

from ckpt.errors import AmbiguousStateError, FormatError
from ckpt.formats.pickle.describe import brief, describe, kind_of
from ckpt.formats.pickle.find import find
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque
from ckpt.formats.pickle.values import digest_of
from tests.formats import hostile
from tests.formats.support import opened, saved, torch_file

ONE, TWO = torch.ones(1), torch.ones(2)


def nested(value: object, times: int) -> object:
    for _ in range(times):
        value = [value]
    return value


def test_depth_has_a_limit() -> None:
    """Of 100 containers, the outermost included."""
    data = saved({"a": nested(ONE, 99)})
    assert [entry.key for entry in opened(data).entries] == [".".join(["a", *["0"] * 99])]
    with pytest.raises(FormatError, match="nested deeper than 100, or in a circle"):
        opened(saved({"a": nested(ONE, 100)}))


def test_steps_have_a_limit() -> None:
    """One for the root, and one for each end: of the root's items, and of the root."""
    assert find(DictNode([]), name="p", step_limit=3).tensors == []
    with pytest.raises(FormatError, match="p: its parts are shared too often"):
        find(DictNode([]), name="p", step_limit=2)


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ({"x": TWO, "m": {"y": TWO}}, ["x"]),
        ({"x": TWO, "m": {"y": TWO, "z": TWO}}, ["y", "z"]),
        ({"m": {"y": TWO}, "n": {"w": TWO, "a": 1, "b": 2}}, ["y"]),
    ],
    ids=["as many in the root", "more below", "more settings than tensors"],
)
def test_state_dict_is_the_largest_or_the_root(value: object, keys: list[str]) -> None:
    assert [entry.key for entry in opened(saved(value)).entries] == keys


def test_half_of_a_state_dict_may_be_settings() -> None:
    with pytest.raises(AmbiguousStateError):
        opened(saved({"m": {"y": TWO}, "n": {"w": TWO, "a": 1}}))


@pytest.mark.parametrize(("count", "more"), [(5, ""), (11, "  or 6 more")])
def test_hint_names_five(count: int, more: str) -> None:
    with pytest.raises(AmbiguousStateError) as refused:
        opened(saved({f"m{number}": {f"x{number}": TWO} for number in range(count)}))
    shown = "  or  ".join(f"file::m{number}" for number in range(5))
    assert refused.value.hint == f"name one: {shown}{more}"


def test_hint_names_what_has_tensors_once() -> None:
    value = {"a": {"model": {"x": TWO}, "b": [TWO]}, "parts": [TWO], "epoch": 3}
    with pytest.raises(FormatError, match="holds no state_dict 'x'") as refused:
        opened(saved(value), "x")
    assert refused.value.hint == "name one: file::a.model  or  file::parts"


@pytest.mark.parametrize("nbytes", [16, 5056])
def test_state_of_a_random_generator_is_not_a_state_dict(nbytes: int) -> None:
    """Of CUDA and of the CPU, as `torch.get_rng_state` gives it."""
    assert torch.get_rng_state().shape == (5056,)
    with pytest.raises(FormatError, match=r"^file: the state of a random generator, not a state"):
        opened(saved(torch.zeros(nbytes, dtype=torch.uint8)))
    for other in (torch.zeros(nbytes + 1, dtype=torch.uint8), torch.zeros(nbytes)):
        with pytest.raises(FormatError, match=r"^file: a single tensor, not a state_dict"):
            opened(saved(other))


def test_first_global_that_hides_the_tensors_is_named() -> None:
    calls = [hostile.call("os", name) for name in ("first", "second")]
    pickle = hostile.PROTO2 + hostile.tuple_of(*calls) + hostile.STOP
    with pytest.raises(FormatError, match=r"os\.first at offset 3: the file holds no tensors"):
        opened(torch_file(pickle))


def test_attributes_have_no_key_and_those_of_a_call_no_path() -> None:
    """What a call makes of its attributes is unknown; a namespace keeps them."""
    state = hostile.DICT + hostile.text("x") + hostile.tensor() + hostile.SETITEM + hostile.BUILD
    namespace = hostile.global_("argparse", "Namespace") + b")\x81" + state
    device = hostile.call("torch", "device", hostile.text("cpu")) + state
    storages = {"0": bytes(16)}
    data = torch_file(hostile.PROTO2 + hostile.tuple_of(namespace) + hostile.STOP, storages)
    assert [entry.key for entry in opened(data).entries] == ["0.None.x"]
    data = torch_file(hostile.PROTO2 + hostile.tuple_of(device) + hostile.STOP, storages)
    with pytest.raises(FormatError, match=r"torch\.device\('cpu'\) is on the path to a tensor"):
        opened(data)


def test_strangers_are_the_others_that_are_not_copies() -> None:
    own, other = {"fc.weight": TWO, "fc.bias": ONE}, {"x.weight": TWO, "x.bias": TWO}
    value = {"a": other, "m": own, "ema": own, "module": {"module.fc.bias": TWO}, "z": other}
    state = opened(saved(value), "m").state  # type: ignore[attr-defined]
    assert state.strangers == ["a", "z"]


def test_thousand_nodes_are_shown() -> None:
    """The list or dict is one of them."""
    assert describe(list(range(5000))) == [*range(999), "…"]
    shown = {str(number): number for number in range(999)}
    items: list[tuple[object, object]] = [(str(number), number) for number in range(5000)]
    assert describe(DictNode(items)) == {**shown, "999": "…"}
    assert describe([[], *range(5000)]) == [[], *range(998), "…"]


def test_nine_levels_are_shown() -> None:
    assert describe(nested(3, 8)) == nested(3, 8)
    assert describe(nested(3, 9)) == nested("…", 9)


def test_nine_levels_of_mappings_and_sets_are_shown() -> None:
    """The list of a set's items, which its call holds, is not a level of its own."""
    for times, shown in ((8, 3), (9, "…")):
        node: object = 3
        for _ in range(times):
            node, shown = DictNode([("a", node)]), {"a": shown}
        assert describe(node) == shown
    for times, inside in ((7, 3), (8, "…")):
        made = Call("builtins.set", ([3],))
        assert describe(nested(made, times)) == nested([inside], times)


def test_keys_that_look_the_same_are_told_apart() -> None:
    items: list[tuple[object, object]] = [(1, "a"), ("1", "b"), ("1 (text)", "c")]
    items += [("torch.int8", "d"), (Global("torch.int8"), "e"), ((1,), "f"), ("(1)", "g")]
    assert describe(DictNode(items)) == {
        **{"1": "a", "1 (text)": "b", "1 (text) (text)": "c", "torch.int8": "d"},
        **{"torch.int8 (global)": "e", "(1)": "f", "(1) (text)": "g"},
    }


def test_thousand_characters_of_a_text_are_shown() -> None:
    assert describe("x" * 1000) == "x" * 1000
    assert describe("x" * 1001) == "x" * 1000 + "…"


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["state", "param_groups"], "the state of an optimizer"),
        (["state", "param_groups", "more"], "the state of an optimizer"),
        (["last_epoch", "_last_lr", "base_lrs"], "the state of a learning rate scheduler"),
        (["scale", "growth_factor", "backoff_factor"], "the state of a GradScaler"),
        (["python", "numpy", "cpu", "cuda"], "the states of random generators"),
        (["state"], None),
        (["python", "numpy"], None),
        ([], None),
    ],
)
def test_keys_tell_what_a_file_holds(keys: list[str], kind: str | None) -> None:
    assert kind_of(keys) == kind


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        ((1, "a", None), "(1, 'a', None)"),
        ((1, 2, 3, 4), "a tuple"),
        ((1, [2]), "a tuple"),
        (Call("torch.device", ("cuda", 0, 1)), "torch.device('cuda', 0, 1)"),
        (Call("torch.device", ("cuda", 0, 1, 2)), "torch.device(…)"),
        (Call("torch.device", ((1,),)), "torch.device(…)"),
        (Opaque("a.B", 0), "a.B"),
        (Opaque("a.B", 0, [()]), "a.B(…)"),
        (Opaque("a.B", 0, [], DictNode([])), "a.B(…)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_node_in_a_few_words(node: object, shown: str) -> None:
    assert brief(node) == shown


def test_digest_tells_values_apart_within_its_budget() -> None:
    values = [[1, "1"], ["1", 1], [[1], "1"], [1, b"1"], (1, "1"), [True, "1"], {"1": 1}]
    found = [opened(saved({"w": ONE, "v": value})).state.digests["v"] for value in values]  # type: ignore[attr-defined]
    assert len(set(found)) == len(values)
    again = opened(saved({"w": TWO, "v": [1, "1"]})).state.digests["v"]  # type: ignore[attr-defined]
    assert again == found[0]
    # Each value counts twice, as a part and by itself; nothing holds the list.
    assert digest_of([0] * 10, [21]) is not None
    assert digest_of([0] * 10, [20]) is None
