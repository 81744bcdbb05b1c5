"""`ckpt diff --values` and `--tolerance`: what people see, exit codes, and what is read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckpt.registry.store.objects import ObjectStore
from tests.cli.support import Run, on_a_terminal, weights

# What getrusage says begins with what the parent had when it forked.
from tests.effort import by_effort

STATUS = Path("/proc/self/status")
CHILD = """
import sys
from ckpt.cli import main
try:
    main(sys.argv[1:])
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak.split()[1], file=sys.stderr)
"""


def moved(folder: Path) -> dict[str, torch.Tensor]:
    """`old.pt` with one weight moved, one bias far off, and a NaN; written to `new.pt`."""
    tensors = dict(weights())
    tensors["fc1.weight"] = tensors["fc1.weight"].clone()
    tensors["fc1.weight"][3, :12] += 0.001
    tensors["fc1.bias"] = tensors["fc1.bias"] * 2
    tensors["conv1.bias"] = tensors["conv1.bias"].clone()
    tensors["conv1.bias"][5] = float("nan")
    torch.save(tensors, folder / "new.pt")
    return tensors


def no_bare_constant(name: str) -> None:
    raise AssertionError(f"bare {name}")


def test_table_has_what_changed_most_first(ckpt: Run, old: Path, folder: Path) -> None:
    moved(folder)
    ran = ckpt("diff", "old.pt", "new.pt", "--values")
    assert (ran.code, ran.err) == (0, "")
    head, _, table = ran.out.partition("\n\n")
    assert "  changed   conv1.bias   values differ" in head
    lines = table.splitlines()
    assert " ".join(lines[0].split()) == "key differ max abs mean abs rel L2 cosine ulps NaN"
    assert [line.split()[0] for line in lines[2:]] == ["conv1.bias", "fc1.bias", "fc1.weight"]
    assert "1 of 32" in lines[2]
    assert lines[2].endswith("0 -> 1")
    assert "64 of 64" in lines[3]
    assert " 1  1.000000 " in lines[3], "doubled: a relative L2 of 1, and the same direction"
    assert "12 of 589,824" in lines[4]
    assert " 0.001 " in lines[4]


def test_narrow_terminal_leaves_columns_out_before_it_breaks_keys(ckpt: Run, folder: Path) -> None:
    torch.save({"blocks.0.attn.weight": torch.ones(600, 600)}, folder / "a.pt")
    torch.save({"blocks.0.attn.weight": torch.full((600, 600), 1.5)}, folder / "b.pt")
    words = ("diff", "a.pt", "b.pt", "--values")
    heads = ["ulps", "mean abs", "max abs", "rel L2", "cosine"]
    widths = ((120, []), (93, ["ulps"]), (80, ["ulps", "mean abs"]))
    for columns, left in by_effort(widths[2:], widths, widths):
        head, rule, row = on_a_terminal(columns, *words).replace("\r", "").splitlines()[-3:]
        assert [name for name in heads if name not in head] == left
        assert row.startswith("  blocks.0.attn.weight  360,000 of 360,000  ")
        assert max(len(head), len(rule), len(row)) <= columns
    assert "ulps" in on_a_terminal(80, *words, "--wide")


def test_json_has_every_figure_and_no_bare_constant(ckpt: Run, old: Path, folder: Path) -> None:
    moved(folder)
    text = ckpt("diff", "old.pt", "new.pt", "--values", "--json").out
    data = json.loads(text, parse_constant=no_bare_constant)
    assert [each["key"] for each in data["values"]] == ["conv1.bias", "fc1.bias", "fc1.weight"]
    broken, doubled, _ = data["values"]
    assert broken == {
        **broken,
        "dtypes": ["float32", "float32"], "elements": 32, "differ": 1, "nan": [0, 1],
        "inf": [0, 0], "left_out": 1, "incomparable": 1, "max_abs": 0.0, "exact_cast": None,
    }  # fmt: skip
    assert doubled["relative_l2"] == 1.0
    assert (data["tolerance"], data["within"]) == (None, [])
    assert ckpt("diff", "old.pt", "new.pt", "--json").data["values"] is None


def test_fault_21_what_is_beyond_float64_is_text_in_json(ckpt: Run, folder: Path) -> None:
    top = torch.full((3,), torch.finfo(torch.float64).max, dtype=torch.float64)
    lost = torch.full((2,), float("inf"))
    torch.save({"far": top, "lost": lost}, folder / "a.pt")
    torch.save({"far": -top, "lost": -lost}, folder / "b.pt")
    text = ckpt("diff", "a.pt", "b.pt", "--values", "--json").out
    lost_, far = json.loads(text, parse_constant=no_bare_constant)["values"]
    assert (far["max_abs"], far["relative_l2"], far["cosine"]) == ("inf", 2.0, -1.0)
    assert (lost_["max_abs"], lost_["cosine"], lost_["inf"]) == (None, None, [2, 2])
    assert "inf" in ckpt("diff", "a.pt", "b.pt", "--values").out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--exit-code",), 1),
        (("--exit-code", "--values"), 1),
        (("--exit-code", "--tolerance", "0.01"), 0),
        (("--exit-code", "--tolerance", "0.01", "--json"), 0),
        (("--exit-code", "--tolerance", "0.0001"), 1),
        (("--tolerance", "0.0001"), 0),
        (("--exit-code", "--keys"), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_exit_code_follows_the_tolerance(
    ckpt: Run, old: Path, folder: Path, words: tuple[str, ...], code: int
) -> None:
    tensors = dict(weights())
    tensors["fc2.weight"] = tensors["fc2.weight"] + 0.001
    torch.save(tensors, folder / "new.pt")
    assert ckpt("diff", "old.pt", "new.pt", *words).code == code


def test_nan_is_never_within_a_tolerance(ckpt: Run, old: Path, folder: Path) -> None:
    moved(folder)
    ran = ckpt("diff", "old.pt", "new.pt", "--tolerance", "1e9", "--exit-code")
    assert ran.code == 1
    assert ran.out.endswith("\n  1 key changed by more than 1e+09 · 2 within\n")
    data = ckpt("diff", "old.pt", "new.pt", "--tolerance", "1e9", "--json").data
    assert data["within"] == ["fc1.bias", "fc1.weight"]
    assert (data["tolerance"], data["differs"]) == (1e9, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tolerance", "-1"), "a tolerance of -1.0"),
        (("--tolerance", "nan"), "a tolerance of nan"),
        (("--tolerance", "1e-3", "--keys"), "--keys reads no values"),
        (("--all", "--keys"), "--keys reads no values"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused(
    ckpt: Run, old: Path, words: tuple[str, ...], message: str
) -> None:
    ran = ckpt("diff", "old.pt", "old.pt", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_twenty_rows_are_shown_unless_all_are_asked_for(ckpt: Run, folder: Path) -> None:
    before = {f"layers.{n}.weight": torch.ones(4) for n in range(25)}
    torch.save(before, folder / "a.pt")
    torch.save({key: each * (2 + n) for n, (key, each) in enumerate(before.items())}, "b.pt")
    some = ckpt("diff", "a.pt", "b.pt", "--values").out.splitlines()
    assert some[-1] == "  5 more changed less; --all lists them"
    assert [line.split()[0] for line in some[-21:-1]] == [
        f"layers.{n}.weight" for n in range(24, 4, -1)
    ]
    everything = ckpt("diff", "a.pt", "b.pt", "--all").out.splitlines()
    assert len(everything) == len(some) + 4
    assert everything[-1].startswith("  layers.0.weight  ")
    assert len(ckpt("diff", "a.pt", "b.pt", "--values", "--json").data["values"]) == 25


def test_cast_is_said(ckpt: Run, old: Path, folder: Path) -> None:
    torch.save({key: each.bfloat16() for key, each in weights().items()}, folder / "half.pt")
    ran = ckpt("diff", "old.pt", "half.pt", "--values")
    assert ran.out.count("   exact\n") == len(weights())
    assert " ulps " not in ran.out


@pytest.mark.parametrize(
    ("tolerance", "code"), [("1e-1", 0), ("1e-9", 1)], ids=["within", "beyond"]
)
def test_cast_is_equal_within_a_tolerance(
    ckpt: Run, old: Path, folder: Path, tolerance: str, code: int
) -> None:
    torch.save({key: each.bfloat16() for key, each in weights().items()}, folder / "half.pt")
    apart = max(float((it - it.bfloat16().float()).abs().max()) for it in weights().values())
    assert 1e-9 < apart < 1e-1
    ran = ckpt("diff", "old.pt", "half.pt", "--tolerance", tolerance, "--exit-code")
    assert ran.code == code
    assert ("\n  0 keys changed by more than 0.1 · 8 within\n" in ran.out) == (code == 0)


def test_integers_of_another_dtype_are_not_within_a_tolerance(ckpt: Run, folder: Path) -> None:
    torch.save({"a.n": torch.zeros(3)}, folder / "a.pt")
    torch.save({"a.n": torch.zeros(3, dtype=torch.int64)}, folder / "b.pt")
    ran = ckpt("diff", "a.pt", "b.pt", "--tolerance", "1", "--exit-code")
    assert ran.code == 1
    assert "1 key changed by more than 1 · 0 within" in ran.out


def test_probable_renames_are_measured(ckpt: Run, folder: Path) -> None:
    state = {f"layers.{i}.w": torch.randn(3, 3) for i in range(3)}
    moved = {key.replace("layers", "blocks"): it + 0.25 for key, it in state.items()}
    torch.save(state, folder / "a.pt")
    torch.save(moved, folder / "b.pt")
    data = ckpt("diff", "a.pt", "b.pt", "--tolerance", "0.5", "--json").data
    assert {pair["key"]: pair["new"] for pair in data["values"]} == {
        f"layers.{i}.w": f"blocks.{i}.w" for i in range(3)
    }
    for pair in data["values"]:
        found = (moved[pair["new"]] - state[pair["key"]]).abs().max()
        assert pair["max_abs"] == pytest.approx(float(found))
    assert sorted(data["within"]) == sorted(state)
    assert data["differs"], "the keys do"
    assert (
        "0 keys changed by more than 0.5 · 3 within"
        in ckpt(*("diff", "a.pt", "b.pt", "--tolerance", "0.5")).out
    )


def objects(folder: Path) -> dict[str, Path]:
    return {each.digest: each.path for each in ObjectStore(folder / ".ckpt").objects()}


def harm(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def registered(ckpt: Run, old: Path, folder: Path) -> Run:
    """v1, and v2 in which fc1.weight is another."""
    tensors = dict(weights())
    tensors["fc1.weight"] = tensors["fc1.weight"] + 0.5
    torch.save(tensors, folder / "new.pt")
    assert ckpt("register", "old.pt", "--name", "m").code == 0
    assert ckpt("register", "new.pt", "--name", "m").code == 0
    return ckpt


def digest_of(ckpt: Run, version: str, key: str) -> str:
    tensors = ckpt("show", version, "--json").data["tensors"]
    return str(next(each["digest"] for each in tensors if each["key"] == key))


def test_of_two_versions_only_what_differs_is_read(registered: Run, folder: Path) -> None:
    needed = {digest_of(registered, version, "fc1.weight") for version in ("v1", "v2")}
    for name, path in objects(folder).items():
        if name not in needed and ".ckpt/objects" in str(path):
            harm(path)
    ran = registered("diff", "v1", "v2", "--values")
    assert (ran.code, ran.err) == (0, "")
    assert "589,824 of 589,824" in ran.out
    assert registered("diff", "v1", "v1", "--values", "--exit-code").code == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_damage_in_what_differs_is_named(registered: Run, folder: Path, version: str) -> None:
    harm(objects(folder)[digest_of(registered, version, "fc1.weight")])
    ran = registered("diff", "v1", "v2", "--values")
    assert (ran.code, ran.out) == (4, "")
    assert f"of m:{version}: fc1.weight is damaged" in ran.err
    assert registered("diff", "v1", "v2").code == 0, "digests alone need no object"


def test_file_and_version_are_compared_by_value(registered: Run) -> None:
    ran = registered("diff", "old.pt", "m:v2", "--values", "--json")
    (values,) = ran.data["values"]
    assert values["key"] == "fc1.weight"
    assert values["max_abs"] == pytest.approx(0.5, rel=1e-6)
    assert len(ran.data["same"]) == 7


def test_definition_has_no_values(ckpt: Run, old: Path) -> None:
    ran = ckpt("diff", "old.pt", "ckpt.models.mnist_cnn:Net", "--values")
    assert (ran.code, "fits" in ran.out) == (0, True)


def test_fault_14_view_of_a_tebibyte_is_refused(ckpt: Run, folder: Path) -> None:
    torch.save({"e": torch.zeros(1).expand(2**40)}, folder / "a.pt")
    ran = ckpt("diff", "a.pt", "a.pt", "--values")
    assert (ran.code, ran.out) == (3, "")
    assert "e: a view that would expand to 4 TiB" in ran.err


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not say what the peak was")
@pytest.mark.long
@pytest.mark.parametrize("key", ["first", "last"])
def test_memory_stays_bounded(folder: Path, key: str) -> None:
    """Two files of 200 MB, with one large tensor and many small ones."""
    before = {"first": torch.zeros(40_000_000)} | {f"n{n}": torch.zeros(10_000) for n in range(990)}
    before["last"] = torch.zeros(10_000)
    torch.save(before, folder / "a.pt")
    before[key] += 1
    torch.save(before, folder / "b.pt")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "diff", "a.pt", "b.pt", "--values", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (values,) = json.loads(done.stdout)["values"]
    assert (values["key"], values["mean_abs"]) == (key, 1.0)
    assert int(done.stderr) < 150_000, "kB"
