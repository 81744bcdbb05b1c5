"""Operations of rule files give what torch gives, bit by bit, and are undone where they can be."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

import ckpt
from ckpt.errors import CkptError, PlanError, RuleError, UnmatchedRuleError
from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.rules.document import read_rules
from tests.effort import examples
from tests.formats.support import expected
from tests.formats.test_laws import state_dicts

Weights = dict[str, torch.Tensor]
QKV = torch.arange(72.0).reshape(12, 6)
EXPERTS = {f"experts.{i}.w": torch.full((2, 3), float(i)) for i in range(11)}


def done(state: Weights, rules: list[dict[str, Any]], suffix: str = ".pt") -> Weights:
    """The tensors after the rules, loaded by their own library."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out{suffix}"
        torch.save(state, Path(folder) / "in.pt")
        ckpt.rename(Path(folder) / "in.pt", read_rules(rules, name="rules"), out=out)
        if suffix == ".safetensors":
            with safe_open(out, "pt") as file:
                noted = file.metadata()
            found = load_file(out)
            return found | {name: found[key] for name, key in noted.items() if key in found}
        return dict(torch.load(out, weights_only=True))


CASES: dict[str, tuple[Weights, list[dict[str, Any]], Callable[[], Weights]]] = {
    "split": (
        {"h.0.qkv.weight": QKV, "h.0.qkv.bias": QKV[:, 0]},
        [{"split": "qkv", "into": ["q", "k", "v"]}],
        lambda: {
            f"h.0.{part}.{leaf}": whole.split(4)[number]
            for leaf, whole in (("weight", QKV), ("bias", QKV[:, 0]))
            for number, part in enumerate("qkv")
        },
    ),
    "split in unequal parts of another dimension": (
        {"qkv": QKV}, [{"split": "qkv", "into": ["q", "k"], "dim": -1, "sizes": [4, 2]}],
        lambda: {"q": QKV[:, :4], "k": QKV[:, 4:]},
    ),
    "concat": (
        {"a.q.w": QKV[:2], "n": QKV[0], "a.k.w": QKV[2:3], "b.q.w": QKV[:2], "b.k.w": QKV[5:]},
        [{"concat": ["k", "q"], "into": "kq"}],
        lambda: {"a.kq.w": torch.cat([QKV[2:3], QKV[:2]]), "n": QKV[0],
                 "b.kq.w": torch.cat([QKV[5:], QKV[:2]])},
    ),
    "concat of strided ones along columns": (
        {"q": QKV.t(), "k": QKV[:6, :3]}, [{"concat": ["q", "k"], "into": "qk", "dim": 1}],
        lambda: {"qk": torch.cat([QKV.t(), QKV[:6, :3]], 1)},
    ),
    "stack": (
        {"x": QKV, **EXPERTS}, [{"stack": r"experts\.(\d+)", "into": "experts"}],
        lambda: {"x": QKV, "experts.w": torch.stack(list(EXPERTS.values()))},
    ),
    "stack along the last dimension": (
        EXPERTS, [{"stack": r"experts\.(\d+)", "into": "experts", "dim": -1}],
        lambda: {"experts.w": torch.stack(list(EXPERTS.values()), -1)},
    ),
    "unstack": (
        {"w": QKV}, [{"unstack": "w", "into": "e.{i}.w", "dim": 1}],
        lambda: {f"e.{i}.w": QKV[:, i] for i in range(6)},
    ),
    "transpose": ({"a.w": QKV, "b": QKV}, [{"transpose": r"\.w$"}],
                  lambda: {"a.w": QKV.t(), "b": QKV}),
    "transpose of the last two": (
        {"w": QKV.reshape(2, 6, 6)}, [{"transpose": "w", "dims": [-1, -2]}],
        lambda: {"w": QKV.reshape(2, 6, 6).transpose(-1, -2)},
    ),
    "permute": ({"w": QKV.reshape(2, 6, 6)}, [{"permute": "w", "dims": [2, 0, 1]}],
                lambda: {"w": QKV.reshape(2, 6, 6).permute(2, 0, 1)}),
    "reshape": ({"w": QKV}, [{"reshape": "w", "shape": [2, -1, 3]}],
                lambda: {"w": QKV.reshape(2, -1, 3)}),
    "reshape of a transposed one": (
        {"w": QKV}, [{"transpose": "w"}, {"reshape": "w", "shape": [-1]}],
        lambda: {"w": QKV.t().reshape(-1)},
    ),
    "squeeze and unsqueeze": (
        {"a": QKV[None], "b": QKV},
        [{"squeeze": "a"}, {"unsqueeze": "b", "dim": -1}],
        lambda: {"a": QKV, "b": QKV.unsqueeze(-1)},
    ),
    "cast": (
        {"a": QKV / 7, "b": torch.arange(3)},
        [{"cast": "a", "dtype": "bfloat16"}, {"cast": "b", "dtype": "float64"}],
        lambda: {"a": (QKV / 7).bfloat16(), "b": torch.arange(3.0, dtype=torch.float64)},
    ),
    "duplicate": ({"a": QKV}, [{"duplicate": "a", "into": ["b", "c"]}],
                  lambda: {"b": QKV, "c": QKV}),
    "tie": ({"a": QKV}, [{"tie": "a", "into": ["a", "c"]}], lambda: {"a": QKV, "c": QKV}),
    "fill": (
        {"bn.running_var": QKV[0], "w": QKV},
        [{"fill": "num_batches", "beside": "running_var", "value": 0, "shape": [],
          "dtype": "int64"},
         {"fill": "scale", "beside": "^w$", "value": 1.5}],
        lambda: {"bn.running_var": QKV[0], "bn.num_batches": torch.tensor(0), "w": QKV,
                 "scale": torch.full_like(QKV, 1.5)},
    ),
    "one after the other": (
        {"h.0.qkv": QKV, "h.1.qkv": QKV + 1},
        [{"rename": "h->blocks"}, {"split": "qkv", "into": ["q", "k", "v"]}, {"drop": "k$"},
         {"transpose": "q$"}, {"concat": ["v", "v2"], "into": "x"}],
        lambda: {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", CASES)
def test_operation_gives_what_torch_gives(case: str, suffix: str) -> None:
    state, rules, wanted = CASES[case]
    if not wanted():
        with pytest.raises(PlanError, match="lacks part 2, 'v2'"):
            done(state, rules, suffix)
        return
    found = done(state, rules, suffix)
    order = list if suffix == ".pt" else sorted
    assert order(found) == order(wanted())
    assert expected(found) == expected(wanted())


def test_tied_ones_share_their_bytes_and_copies_do_not() -> None:
    tied = done({"a": QKV}, [{"tie": "a", "into": ["a", "b"]}])
    assert tied["a"].data_ptr() == tied["b"].data_ptr()
    copies = done({"a": QKV}, [{"duplicate": "a", "into": ["a", "b"]}])
    assert copies["a"].data_ptr() != copies["b"].data_ptr()


REFUSED: list[tuple[dict[str, Any], type[CkptError], str]] = [
    (
        {"split": "w", "into": ["a", "b"], "dim": 2},
        PlanError,
        "w: shape [12, 6] has no dimension 2",
    ),
    ({"split": "w", "into": list("abcde")}, PlanError, "into 5 equal parts"),
    (
        {"split": "w", "into": ["a", "b"], "sizes": [5, 5]},
        PlanError,
        "do not add up to dimension 0",
    ),
    ({"split": "w", "into": ["a", "b"], "sizes": [13, -1]}, PlanError, "do not add up to"),
    ({"split": "zzz", "into": ["a"]}, UnmatchedRuleError, "'zzz' matches none of the 2 keys"),
    ({"concat": ["w", "v"], "into": "x"}, PlanError, "cannot join along"),
    ({"concat": ["w", "z"], "into": "x"}, PlanError, "lacks part 2, 'z'"),
    ({"concat": ["[wv]", "z"], "into": "x"}, PlanError, "are both part 1"),
    ({"stack": "w", "into": "x"}, PlanError, "is not a number"),
    ({"transpose": "v"}, PlanError, "v: shape [6] has no dimension 1"),
    ({"permute": "w", "dims": [0, 0]}, PlanError, "does not name each of its 2 dimensions"),
    ({"reshape": "w", "shape": [7, -1]}, PlanError, "has 72 elements"),
    ({"reshape": "w", "shape": [-1, -1]}, PlanError, "has 72 elements"),
    ({"squeeze": "w"}, PlanError, "has more than one element"),
    ({"cast": "w", "dtype": "float31"}, PlanError, "float31 is not a dtype"),
    ({"cast": "w"}, RuleError, "dtype is None, expected a non-empty string"),
    ({"fill": "a", "beside": "w", "value": "0"}, RuleError, "value is '0', expected a number"),
    ({"fill": "a", "beside": "w", "value": 0, "dtype": "x"}, RuleError, "a dtype like float32"),
    ({"unstack": "w", "into": "a"}, RuleError, "a name with {i}"),
    ({"split": "w", "into": "q"}, RuleError, "a list of 1 or more strings"),
    ({"split": "w", "into": ["q"], "sise": [1]}, RuleError, "split has no 'sise'"),
    ({"split": "w", "drop": "v"}, RuleError, "'split' and 'drop', expected one verb"),
    ({"spilt": "w"}, RuleError, "only spilt, expected one verb"),
    ({"split": "(", "into": ["q"]}, RuleError, "not a valid regular expression"),
]


@pytest.mark.parametrize(("rule", "error", "says"), REFUSED, ids=[str(r)[:40] for r, *_ in REFUSED])
def test_operation_that_does_not_fit_is_refused(
    rule: dict[str, Any], error: type[CkptError], says: str
) -> None:
    with pytest.raises(error) as refused:
        done({"w": QKV, "v": QKV[0]}, [rule])
    assert says in str(refused.value)


def test_stack_with_a_gap_is_refused() -> None:
    with pytest.raises(PlanError, match=r"experts\.w lacks part 1"):
        done(
            {"experts.0.w": QKV, "experts.2.w": QKV},
            [{"stack": r"experts\.(\d+)", "into": "experts"}],
        )


# Operations on whatever a state_dict holds, and renames around them.
RULES = st.lists(
    st.sampled_from(
        [
            {"rename": "^(?=.)->x."},
            {"unsqueeze": "^", "dim": 0},
            {"split": "^(.*)$", "into": [r"\1.only"]},
            {"reshape": "^", "shape": [-1]},
            {"add": "m."},
            {"duplicate": "^(.*)$", "into": [r"\1.a", r"\1.b"]},
            {"tie": "^(.*)$", "into": [r"\1.a", r"\1.b"]},
            {"fill": r"\1.new", "beside": "^(.*)$", "value": 0},
        ]
    ),
    min_size=1,
    max_size=4,
)


@given(state_dicts(), RULES, st.sampled_from([".pt", ".safetensors"]))
@settings(max_examples=examples(150))
def test_rename_then_undo_is_the_identity(
    state: Weights, rules: list[dict[str, Any]], suffix: str
) -> None:
    state = {key.replace(".", "-"): tensor for key, tensor in state.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(state, folder / "in.pt")
        saved = folder / "rules.toml"
        try:
            ckpt.rename(
                folder / "in.pt", read_rules(rules, name="r"), out=folder / f"new{suffix}",
                save_rules=saved,
            )  # fmt: skip
        except (PlanError, RuleError):
            return
        plan = ckpt.rename(
            folder / f"new{suffix}", read_rule_file(saved), undo=True, out=folder / "back.pt"
        ).plan
        back = torch.load(folder / "back.pt", weights_only=True)
        # A tied name has no place of its own in a safetensors file: it comes after its tensor.
        in_order = list if suffix == ".pt" else sorted
        assert in_order(back) == in_order(state)
        assert expected(back) == expected(state)
        assert len(plan.tensors) == len(state)


@given(state_dicts(), st.data())
@settings(max_examples=examples(150))
def test_pure_rename_then_undo_is_the_same_file(state: Weights, draw: st.DataObject) -> None:
    """For any injective plan, and whatever container; digests are the same all the time."""
    from ckpt.rules.key_map import KeyMap
    from tests.formats.test_laws import KEYS

    keys = list(state)
    names = draw.draw(
        st.lists(KEYS.filter(lambda key: "." not in key), min_size=len(keys), max_size=len(keys),
                 unique=True)
    )  # fmt: skip
    pairs = {old: new for old, new in zip(keys, names, strict=True) if old != new}
    if not pairs or any(other.startswith(f"{key}.") for key in pairs for other in keys):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(state, folder / "in.pt")
        kept = set(names) & set(keys) - set(pairs)
        if kept:
            return
        ckpt.rename(
            folder / "in.pt", [KeyMap("map", pairs)], out=folder / "new.pt",
            save_rules=folder / "rules.toml",
        )  # fmt: skip
        ckpt.rename(
            folder / "new.pt", read_rule_file(folder / "rules.toml"), undo=True,
            out=folder / "in2.pt",
        )  # fmt: skip
        new = torch.load(folder / "new.pt", weights_only=True)
        assert sorted(map(str, expected(new).values())) == sorted(
            map(str, expected(state).values())
        )
        assert (folder / "in2.pt").read_bytes() == (folder / "in.pt").read_bytes()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([{"drop": "v"}], "v was dropped; the plan has no inverse"),
        ([{"cast": "w", "dtype": "float16"}], "w: was cast or resized, which rounds"),
    ],
)
def test_what_has_no_inverse_says_so(
    tmp_path: Path, rules: list[dict[str, Any]], says: str
) -> None:
    torch.save({"w": QKV, "v": QKV[0]}, tmp_path / "in.pt")
    saved = tmp_path / "rules.toml"
    ckpt.rename(
        tmp_path / "in.pt", read_rules(rules, name="r"), out=tmp_path / "new.pt", save_rules=saved
    )
    with pytest.raises(PlanError) as refused:
        ckpt.rename(tmp_path / "new.pt", read_rule_file(saved), undo=True, out=tmp_path / "x.pt")
    assert says in str(refused.value)


def test_widening_cast_is_undone(tmp_path: Path) -> None:
    torch.save({"w": QKV.bfloat16()}, tmp_path / "in.pt")
    rules = read_rules([{"cast": "w", "dtype": "float32"}], name="r")
    ckpt.rename(tmp_path / "in.pt", rules, out=tmp_path / "n.pt", save_rules=tmp_path / "r.toml")
    saved = read_rule_file(tmp_path / "r.toml")
    ckpt.rename(tmp_path / "n.pt", saved, undo=True, out=tmp_path / "b.pt")
    assert expected(torch.load(tmp_path / "b.pt")) == expected({"w": QKV.bfloat16()})


def test_undo_of_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": QKV}, tmp_path / "in.pt")
    torch.save({"x": QKV}, tmp_path / "other.pt")
    ckpt.rename(tmp_path / "in.pt", "w->v", out=tmp_path / "n.pt", save_rules=tmp_path / "r.toml")
    saved = read_rule_file(tmp_path / "r.toml")
    with pytest.raises(PlanError, match="this is not what they made"):
        ckpt.rename(tmp_path / "other.pt", saved, undo=True, out=tmp_path / "b.pt")


@pytest.mark.long
def test_large_tensors_go_through_in_bounded_memory(tmp_path: Path) -> None:
    """Split, joined and copied by ranges: 240 MB of tensors under 150 MB."""
    import subprocess
    import sys

    whole = torch.arange(30_000_000.0).reshape(-1, 1000)
    torch.save({"a.qkv": whole, "b.q": whole[:10_000], "b.k": whole[10_000:]}, tmp_path / "a.pt")
    (tmp_path / "r.toml").write_text(
        "[[rules]]\nsplit = 'qkv'\ninto = ['q1', 'k1', 'v1']\n"
        "[[rules]]\nconcat = ['b\\.q$', 'b\\.k$']\ninto = 'b.qk'\n"
    )
    program = (
        "import sys\nfrom pathlib import Path\nfrom ckpt.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "assert 'torch' not in sys.modules\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    words = ["rename", "a.pt", "--rules", "r.toml", "-o", "b.safetensors"]
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(ran.stdout.split()[-1]) < 150_000, ran.stdout
    new = load_file(tmp_path / "b.safetensors")
    assert torch.equal(torch.cat([new["a.q1"], new["a.k1"], new["a.v1"]]), whole)
    assert torch.equal(new["b.qk"], whole)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"fill": "b", "beside": "a", "value": 300, "dtype": "uint8"}, "uint8 cannot hold 300"),
        ({"fill": "b", "beside": "a", "value": 0.5, "dtype": "int64"}, "cannot hold 0.5"),
        ({"fill": "b", "beside": "a", "value": float("inf"), "dtype": "int8"}, "cannot hold inf"),
        ({"fill": "b", "beside": "a", "value": 10**400}, "float32 cannot hold"),
        ({"fill": "b", "beside": "a", "value": 1, "dtype": "bits8"}, "bits8 cannot hold 1"),
        ({"fill": "b", "beside": "a", "value": 0, "shape": [-1]}, "not the shape of a tensor"),
        (
            {"fill": "b", "beside": "a", "value": 0, "shape": [2**40, 2**40]},
            "not the shape of a tensor",
        ),
        ({"cast": "a", "dtype": "float4_e2m1fn_x2"}, "float4_e2m1fn_x2 has no values"),
        ({"unstack": "a", "into": r"x\1{i}"}, "uses group 1"),
        ({"drop": "(" * 5_000 + "a" + ")" * 5_000}, "not a valid regular expression"),
        (
            {"rename": "a{99999999999999999999}->b"},
            "none of the 1 keys|not a valid regular expression",
        ),
    ],
)
def test_what_no_tensor_can_be_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises((PlanError, RuleError), match=said):
        done({"a": torch.ones(4)}, [rule])


def test_minus_zero_is_filled(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [{"fill": "b", "beside": "a", "value": -0.0}]
    assert torch.signbit(done({"a": torch.ones(4)}, rules)["b"]).all()


def test_number_of_a_part_stands_after_a_group() -> None:
    rules = [{"unstack": r"w(\d)", "into": r"x\1{i}"}]
    found = done({"w7": torch.arange(12.0)}, rules)
    assert list(found) == [f"x7{i}" for i in range(12)]


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    """What is worked out for one of them is the other's as well."""
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"embed.w": shared, "head.w": shared}, tmp_path / "a.pt")
    for rule in (
        {"cast": "w$", "dtype": "bfloat16"},
        {"transpose": "w$"},
        {"reshape": "w$", "shape": [3, 2]},
    ):
        out = tmp_path / f"{next(iter(rule))}.pt"
        ckpt.rename(tmp_path / "a.pt", read_rules([rule], name="rules"), out=out)
        found = torch.load(out, weights_only=True)
        assert found["embed.w"].data_ptr() == found["head.w"].data_ptr()


def test_versions_of_modules_follow_tensors_that_are_cast(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    torch.save(net.state_dict(), tmp_path / "a.pt")
    rules = [{"cast": "weight|bias", "dtype": "float16"}, {"rename": "^0->norm"}]
    ckpt.rename(tmp_path / "a.pt", read_rules(rules, name="rules"), out=tmp_path / "b.pt")
    loaded = torch.load(tmp_path / "b.pt", weights_only=True)
    assert loaded._metadata["norm"] == {"version": 2}


def test_names_in_param_groups_follow(tmp_path: Path) -> None:
    """As torch.distributed's get_optimizer_state_dict has them."""
    model = {"conv.w": torch.ones(2)}
    optimizer = {
        "state": {"conv.w": {"step": torch.ones(())}},
        "param_groups": [{"lr": 0.1, "params": ["conv.w"]}],
    }
    torch.save({"model": model, "optimizer": optimizer}, tmp_path / "a.pt")
    ckpt.rename(tmp_path / "a.pt", "conv->emb", out=tmp_path / "b.pt")
    found = torch.load(tmp_path / "b.pt", weights_only=True)["optimizer"]
    assert list(found["state"]) == ["emb.w"]
    assert found["param_groups"][0]["params"] == ["emb.w"]


def test_dict_is_a_map(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": torch.zeros(1)}, tmp_path / "a.pt")
    ckpt.rename(tmp_path / "a.pt", {"a": "b", "b": "a"}, out=tmp_path / "b.pt")
    assert torch.load(tmp_path / "b.pt", weights_only=True) == {"b": 1.0, "a": 0.0}


def test_empty_result_is_refused() -> None:
    with pytest.raises(PlanError, match="no tensor would be left"):
        done({"a": torch.ones(1)}, [{"drop": "."}])
