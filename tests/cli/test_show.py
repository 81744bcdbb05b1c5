"""`ckpt show` of files and versions, from the command line: --deep, --tree, hostile content."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.support import Run

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07.w", "\u202egpj.evil", "a\r\nb", "\x9b31m", "x" * 10_000, "a..b", "..",
    "a." * 100 + "w", "\x00", "\u2028", "é\u0301.😀",
]  # fmt: skip
OPTIONS = [(), ("--tree",), ("--deep",), ("--tree", "--deep")]


def is_safe(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_fault_24_hostile_keys(
    ckpt: Run, folder: Path, name: str, options: tuple[str, ...]
) -> None:
    state = {key: torch.full((2,), float(index)) for index, key in enumerate(HOSTILE)}
    if name == "x.pt":
        torch.save(state, name)
    else:
        save_file(state, name, {"\x1b[31m": "\x1b]8;;", "format": "\x9b2J"})
    ran = ckpt("show", name, *options)
    assert (ran.code, ran.err) == (0, "")
    assert is_safe(ran.out)
    assert r"\x1b[2J\x1b]0;owned\x07" in ran.out
    as_json = ckpt("show", name, *options, "--json")
    assert as_json.code == 0
    assert as_json.out.isascii()
    assert is_safe(as_json.out)
    if "--tree" not in options:
        assert {each["key"] for each in as_json.data["tensors"]} == set(HOSTILE)


@pytest.mark.parametrize("option", ["--tree", "--deep"])
def test_fault_24_ascii_terminal(folder: Path, option: str) -> None:
    torch.save({f"é.{layer}.w": torch.zeros(1).expand(3, 2) for layer in range(3)}, "x.pt")
    environment = {**os.environ, "LANG": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "ckpt", "show", "x.pt", option],
        env=environment,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert rb"\xe9" in done.stdout
    if option == "--tree":
        assert b".{0..2}  3 x " in done.stdout


def test_fault_08_damaged_file(ckpt: Run, old: Path) -> None:
    data = bytearray(old.read_bytes())
    weight = torch.load(old)["fc1.weight"]
    data[data.index(bytes(weight.view(torch.uint8)[0, :16].tolist()))] ^= 1
    old.write_bytes(data)
    assert ckpt("show", "old.pt").code == 0
    ran = ckpt("show", "old.pt", "--deep")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: old.pt: fc1.weight: old/data/4 is damaged: its CRC-32 is ")
    assert ran.err.endswith("hint:  fetch the file again\n")


def test_fault_08_damaged_version(ckpt: Run, old: Path, folder: Path) -> None:
    assert ckpt("register", "old.pt", "--name", "m").code == 0
    largest = max(folder.glob(".ckpt/objects/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[1000] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    assert ckpt("show", "v1").code == 0
    ran = ckpt("show", "v1", "--deep")
    assert (ran.code, ran.out) == (4, "")
    assert "m:v1: fc1.weight is damaged" in ran.err


def test_fault_08_file_without_sums(ckpt: Run, folder: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.zeros(3)}, "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    ran = ckpt("show", "x.pt", "--deep")
    assert ran.code == 0
    assert "read in full: no checksums in the file · no NaN · no Inf" in ran.out
    assert ckpt("show", "x.pt", "--deep", "--json").data["deep"]["sums"] == 0


def test_fault_14_expanded_view_is_shown_at_once(ckpt: Run, folder: Path) -> None:
    torch.save({"e": torch.zeros(1).expand(1 << 20, 1 << 20)}, "x.pt")
    began = time.process_time()
    ran = ckpt("show", "x.pt")
    took = time.process_time() - began
    assert ran.code == 0
    assert ran.out.splitlines()[-1].split() == [
        "e", "1048576", "1048576", "float32", "4.4", "TB", "expanded",
    ]  # fmt: skip
    assert "1 expanded view" in ran.out
    assert took < 5  # 0.1 s, and nothing near to what 2^40 elements would take
    refused = ckpt("show", "x.pt", "--deep")
    assert refused.code == 3
    assert "would expand to 4 TiB" in refused.err


def test_fault_15_odd_dtypes_are_shown(ckpt: Run, folder: Path) -> None:
    data = torch.arange(16, dtype=torch.uint8)
    names = ["float4_e2m1fn_x2", "float8_e8m0fnu", "bits16", "uint16", "bfloat16"]
    torch.save({name: data.clone().view(getattr(torch, name)) for name in names}, "x.pt")
    shown = ckpt("show", "x.pt", "--deep", "--json").data
    assert [each["dtype"] for each in shown["tensors"]] == names
    assert len({each["digest"] for each in shown["tensors"]}) == 1
    assert shown["tensors"][2]["nan"] is None
    torch.save({"m": torch.zeros(2, device="meta")}, "x.pt")
    refused = ckpt("show", "x.pt")
    assert refused.code == 3
    assert "m: a meta tensor" in refused.err


def test_fault_21_special_values_are_counted_and_json_has_no_bare_nan(
    ckpt: Run, folder: Path
) -> None:
    nan, inf = float("nan"), float("inf")
    state = {
        "a": torch.tensor([nan, inf, -inf, -0.0, 1e-45]),
        "b": torch.tensor([nan, 1, 1], dtype=torch.bfloat16),
        "c": torch.tensor([1, 2]),
    }
    torch.save({"model": state, "loss": nan}, "x.pt")
    ran = ckpt("show", "x.pt::model", "--deep")
    assert "2 NaN in 2 keys · 2 Inf in 1 key" in ran.out
    as_json = ckpt("show", "x.pt::model", "--deep", "--json")
    shown = json.loads(as_json.out, parse_constant=lambda text: pytest.fail(f"a bare {text}"))
    assert [(each["nan"], each["inf"]) for each in shown["tensors"]] == [
        (1, 2),
        (1, 0),
        (None, None),
    ]
    assert shown["rest"]["loss"] == "nan"


def test_tree_of_file_version_and_definition_agree(ckpt: Run, old: Path, folder: Path) -> None:
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)\n"
        "        self.fc1, self.fc2 = nn.Linear(9216, 64), nn.Linear(64, 10)\n"
    )
    assert ckpt("register", "old.pt", "--name", "m").code == 0
    trees = [ckpt("show", ref, "--tree").out for ref in ("old.pt", "m:v1", "net.py:Net")]
    bodies = {tree[tree.index("module ") :] for tree in trees}
    assert bodies == {
        "module  keys  elements     size\n"
        "------  ----  --------  -------\n"
        "conv1      2       320   1.3 kB\n"
        "conv2      2    18,496  74.0 kB\n"
        "fc1        2   589,888   2.4 MB\n"
        "fc2        2       650   2.6 kB\n"
    }
    data = [ckpt("show", ref, "--tree", "--json").data for ref in ("old.pt", "m:v1", "net.py:Net")]
    assert data[0]["modules"] == data[1]["modules"] == data[2]["modules"]
    assert data[0]["modules"][0] == {
        "name": "conv1", "keys": 2, "elements": 320, "size": 1280, "modules": [],
    }  # fmt: skip


def test_deep_of_a_definition_is_a_usage_error(ckpt: Run, folder: Path) -> None:
    ran = ckpt("show", "torch.nn:Identity", "--deep")
    assert (ran.code, ran.out) == (2, "")
    assert "has no weights to read" in ran.err


@pytest.mark.parametrize("options", [("--tree",), ("--deep",)], ids=" ".join)
def test_fault_45_show_imports_no_torch(folder: Path, options: tuple[str, ...]) -> None:
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3, dtype=torch.int64)}, "x.pt")
    heavy = ("torch", "safetensors") if options == ("--deep",) else ("torch", "numpy")
    program = (
        "import sys\nfrom ckpt.cli import main\ntry:\n    main(sys.argv[1:])\n"
        f"except SystemExit as done:\n    found = sorted(set({heavy!r}) & set(sys.modules))\n"
        "    sys.exit(found or done.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "show", "x.pt", *options], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


SIZED = """
import torch.nn as nn

class Net(nn.Module):
    def __init__(self, width, kind="plain"):
        super().__init__()
        self.fc = nn.Linear(4, width, bias=kind == "plain")
"""


def test_definition_is_called_with_what_arg_says(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(SIZED)
    ran = ckpt("show", "net.py:Net")
    assert (ran.code, "--arg NAME=VALUE" in ran.err) == (3, True)
    shown = ckpt("show", "net.py:Net", "--arg", "width=64", "--arg", "kind=bare", "--json").data
    assert [(t["key"], t["shape"]) for t in shown["tensors"]] == [("fc.weight", [64, 4])]
    for text in ("width", "=3", "a b=3"):
        assert ckpt("show", "net.py:Net", "--arg", text).code == 2


def test_check_and_its_hints_have_the_arguments(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(SIZED)
    torch.save({"lin.weight": torch.ones(64, 4), "lin.bias": torch.ones(64)}, folder / "old.pt")
    ran = ckpt("rename", "old.pt", "--rule", "lin=fc", "--check", "net.py:Net", "--arg", "width=64")
    assert ran.code == 0
    ran = ckpt("rename", "old.pt", "--rule", "lin=f", "--check", "net.py:Net", "--arg", "width=64")
    assert (ran.code, "net.py:Net --arg width=64" in ran.err) == (3, True)
