"""`ckpt show --tree`: one line a module, alike layers folded, whatever the keys are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.ops.show import Shown
from ckpt.show.show.tree import DEPTH_LIMIT, module_tree, tree_data, tree_text
from ckpt.tensors import TensorEntry


def shown(keys: dict[str, tuple[int, ...]] | list[str]) -> Shown:
    shapes = keys if isinstance(keys, dict) else dict.fromkeys(keys, (2,))
    entries = [TensorEntry(key, "float32", shape) for key, shape in shapes.items()]
    return Shown("x.pt", "torch-zip", 1000, entries, {})


def lines(keys: dict[str, tuple[int, ...]] | list[str], width: int | None = None) -> list[str]:
    """The modules with their numbers, blanks cut to two; without head and rules."""
    rows = tree_text(shown(keys), width=width).split("\n\n")[1].splitlines()[2:]
    return [row[: len(row) - len(row.lstrip())] + "  ".join(row.split()) for row in rows]


def test_transformer_is_a_screen() -> None:
    keys = {"wte.weight": (100, 8)}
    for layer in range(12):
        keys[f"h.{layer}.attn.q.weight"] = (8, 8)
        keys[f"h.{layer}.attn.q.bias"] = (8,)
        keys[f"h.{layer}.norm.weight"] = (8,)
    keys["norm.weight"] = (8,)
    text = tree_text(shown(keys), width=None)
    assert text == (
        "x.pt  torch-zip · 1.0 kB\n"
        "  38 keys · 1,768 elements of float32 · 7.1 kB of tensors\n"
        "\n"
        "module           keys  elements    size\n"
        "---------------  ----  --------  ------\n"
        "wte                 1       800  3.2 kB\n"
        "h.{0..11}  12 ×    36       960  3.8 kB\n"
        "  attn.q           24       864  3.5 kB\n"
        "  norm             12        96   384 B\n"
        "norm                1         8    32 B"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["a.0.w", "a.1.w"], ["a.{0,1}  2  ×  2  4  16  B"]),
        (["a.0.w", "a.2.w"], ["a  2  4  16  B", "  0  1  2  8  B", "  2  1  2  8  B"]),
        (["a.0.w", "a.1.v"], ["a  2  4  16  B", "  0  1  2  8  B", "  1  1  2  8  B"]),
        (["a.00.w", "a.01.w"], ["a  2  4  16  B", "  00  1  2  8  B", "  01  1  2  8  B"]),
        (
            [f"a.{n}.w" for n in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)],
            ["a.{0..11}  12  ×  12  24  96  B"],
        ),
        (
            {"a.0.w": (1,), "a.1.w": (1,), "a.2.w": (2,), "a.3.w": (1,)},
            ["a  4  5  20  B", "  {0,1}  2  ×  2  2  8  B", "  2  1  2  8  B", "  3  1  1  4  B"],
        ),
        (
            [f"a.{n}.e.{m}.w" for n in range(3) for m in range(4)],
            ["a.{0..2}.e.{0..3}  12  ×  12  24  96  B"],
        ),
        (
            [f"a.{n}.{name}" for n in range(3) for name in ("w", "e.0.w", "e.1.w")],
            ["a.{0..2}  3  ×  9  18  72  B", "  e.{0,1}  2  ×  6  12  48  B"],
        ),
        (
            [f"a.{n}.{name}" for n in range(3) for name in ("w", "m.w", "m.e.0.w", "m.e.1.w")],
            [
                "a.{0..2}  3  ×  12  24  96  B",
                "  m  9  18  72  B",
                "    e.{0,1}  2  ×  6  12  48  B",
            ],
        ),
        (["w", "b", "a.w"], ["(no  module)  2  4  16  B", "a  1  2  8  B"]),
        (["w"], ["(no  module)  1  2  8  B"]),
        ([], []),
        (
            ["a.w", "a.b.w", "a.b.c.d.w"],
            ["a  3  6  24  B", "  b  2  4  16  B", "    c.d  1  2  8  B"],
        ),
    ],
    ids=[
        "two", "gap", "other keys", "leading zeros", "sorted as text", "other shapes", "nested",
        "nested beside keys", "nested further", "no module", "no module at all", "nothing", "chain",
    ],
)  # fmt: skip
def test_lines(keys: Any, expected: list[str]) -> None:
    assert lines(keys) == expected


def test_dtype_makes_layers_differ() -> None:
    entries = [TensorEntry("a.0.w", "float32", (2,)), TensorEntry("a.1.w", "int32", (2,))]
    text = tree_text(Shown("x", None, None, entries, {}), width=None)
    assert "{0,1}" not in text


def test_data_is_nested_and_not_folded() -> None:
    data = tree_data(shown(["top", "a.0.w", "a.1.w"]))
    leaf = {"keys": 1, "elements": 2, "size": 8, "modules": []}
    assert data["modules"] == [
        {
            "name": "a",
            "keys": 2,
            "elements": 4,
            "size": 16,
            "modules": [{"name": "0", **leaf}, {"name": "1", **leaf}],
        }
    ]
    assert (data["keys"], data["elements"]) == (3, {"float32": 6})
    assert "tensors" not in data


def test_fault_24_hostile_keys_are_safe() -> None:
    keys = [
        "\x1b[2J\x1b]0;x\x07.w", "\u202eevil.w", "a\nb.w", "\ud800.w", "a..b", "..", ".w", "w.",
        "x" * 10_000 + ".w", "9" * 5_000 + ".w", "\u0663.w", "\x9b31m.\u2066.w",
    ]  # fmt: skip
    text = tree_text(shown(keys), width=None)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert r"\x1b[2J\x1b]0;x\x07" in text
    assert r"\u202eevil" in text
    assert len(text.splitlines()) == 2 + 1 + 2 + len(lines(keys))
    assert "''" in text
    json.dumps(tree_data(shown(keys)))


def test_fault_24_name_is_cut_where_the_terminal_ends() -> None:
    text = tree_text(shown(["x" * 10_000 + ".w"]), width=60)
    rows = text.split("\n\n")[1].splitlines()
    assert [len(row) for row in rows] == [60] * 3
    assert rows[2].startswith("x" * 30)
    assert "…  " in rows[2]


@pytest.mark.parametrize("dots", [63, 64, 65, 1_000, 100_000])
def test_fault_24_deep_keys_need_no_deep_stack(dots: int) -> None:
    keys = ["a." * dots + "w", "a." * dots + "v", "a.b", *("a." * n + "x" for n in range(2, 90))]
    text = tree_text(shown(keys), width=None)
    assert text.splitlines()[5].split() == ["a", "91", "182", "728", "B"]
    data = tree_data(shown(keys))
    json.loads(json.dumps(data))
    depth, modules = 0, data["modules"]
    while modules:
        depth, modules = depth + 1, modules[0]["modules"]
    assert depth == DEPTH_LIMIT


@given(st.lists(st.text(alphabet="01a.", min_size=1, max_size=9), unique=True, max_size=12))
def test_every_key_is_counted_once(keys: list[str]) -> None:
    root = module_tree(shown(keys).entries)
    assert root.keys == len(keys)

    def own(module: Any) -> int:
        return len(module.own) + sum(map(own, module.modules.values()))

    assert own(root) == len(keys)
    top = [line for line in lines(keys) if not line.startswith(" ")]
    counted = [int(line.replace("B", "").split()[-2]) for line in top]
    assert sum(counted) == 2 * len(keys)
