"""Every script of `examples` and `benchmarks` runs in its shortest form, and prints what it should.

None of them needs files of MNIST then. What they print about time says nothing, so none is looked
at; bytes, keys and scores are.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py")])
Table = dict[str, list[str]]  # cells by the first one of their line


def is_module(path: Path) -> bool:
    """Whether other scripts import it, and it does nothing by itself."""
    line = re.compile(rf"^from {path.stem} import ", re.MULTILINE)
    imported = any(line.search(other.read_text()) for other in path.parent.glob("*.py"))
    return imported and "__main__" not in path.read_text()


SCRIPTS = [path for path in FILES if not is_module(path)]


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints, without CKPT_DATA."""
    environment = {name: text for name, text in os.environ.items() if name != "CKPT_DATA"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(printed: str) -> Table:
    lines = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines())
    return {first: cells for first, *cells in lines if cells}


def check_startup(printed: str) -> None:
    assert {"ckpt --help", "ckpt ls", "ckpt diff v1 v2", "python -c 'import torch'"} <= set(
        table(printed)
    )
    grown = re.search(r"a rename of a version adds ([\d,]+) bytes", printed)
    assert grown
    assert 0 < int(grown[1].replace(",", "")) < 16_384


def check_diff(printed: str) -> None:
    rows = table(printed)
    assert {"cmp, one tensor differs", "ckpt diff --values, one", "ckpt diff --values, all"} <= set(
        rows
    )
    one_tensor = 4 * int(0.002e9 / 4 / 290)
    assert rows["ckpt diff v1 v2"][-1] == "0"
    assert rows["ckpt diff v1 v2 --values"][-1] == f"{2 * one_tensor:,}"


def check_large(printed: str) -> None:
    rows = table(printed)
    for name in ("big.pt", "big.safetensors", "many.pt", "many.safetensors"):
        assert {f"ckpt show {name}", f"ckpt diff --keys {name} {name}"} <= set(rows)
    for name in ("big.pt", "big.safetensors"):
        assert rows[f"cp {name}"][1] == "1"
        assert {f"ckpt register {name}", f"ckpt rename {name}"} <= set(rows)


def check_scale(printed: str) -> None:
    rows = table(printed)
    assert {"cp -r", "ckpt rename"} <= set(rows)
    assert {"ckpt rename many.pt --to net.py:Net", "the floor: torch alone"} <= set(rows)


def check_registry(printed: str) -> None:
    rows = table(printed)
    assert "ckpt alias prod net:v3" in rows
    shares = {
        name: float(cells[-1].rstrip("%")) for name, cells in rows.items() if "%" in cells[-1]
    }
    manifests = {name: shares.pop(name) for name in [*shares] if name.endswith(" each")}
    assert all(least < float(rows[name][-2][:-1]) < 20 for name, least in manifests.items())
    assert (len(manifests), len(shares)) == (3, 6)
    assert 100 <= shares.pop("all weights new") < 105
    assert all(50 <= share < 55 for share in shares.values()), shares  # two copies, stored once


def check_peers(printed: str) -> None:
    rows = table(printed)
    steps = {f"{step} ckpt" for step in ("v1", "v2", "v3", "restore", "verify", "list", "start")}
    assert steps <= set(rows)
    assert 4 <= float(rows["ckpt"][0]) <= 6  # MB of three versions of 4 MB


def check_infer(printed: str) -> None:
    *pairs, total = list(table(printed).values())[-4:]
    assert len(pairs) == 3
    keys = [int(cells[0]) for cells in pairs]
    assert min(keys) > 0
    assert int(total[0]) == sum(keys)


def check_infer_many(printed: str) -> None:
    keys, rules, seconds, megabytes = printed.splitlines()[-1].split()
    assert (keys, rules) == ("1,008", "10")
    assert float(seconds) > 0
    assert float(megabytes) > 0


def check_thresholds(printed: str) -> None:
    counts, margins = printed.split("\n\n")
    assert "none " in counts
    assert all(line.split()[-2] == "0" for line in margins.strip().splitlines()[2:])


def check_guard(printed: str) -> None:
    assert re.findall(r"^ +(\d+) behind +[\d.]+ s$", printed, re.M) == ["0", "1", "10", "100"]


def check_migrations(printed: str) -> None:
    figures = re.findall(r" (-?[\d.]+) ms of CPU$", printed, re.M)
    without, with_hook, added = map(float, figures)
    assert added == pytest.approx(with_hook - without, abs=0.02)


def check_more_pairs(printed: str) -> None:
    rows = table(printed)
    pairs = [name for name in rows if name.startswith(("alexnet ", "nn.Transformer "))]
    assert len(pairs) == 10
    assert all("whole" in rows[name] for name in pairs if name.startswith("alexnet"))
    assert "of the likely keys" in printed


def check_seeds(printed: str) -> None:
    found: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for precision, what, number in re.findall(r"^(fp32|bf16) +(\w+) +([\d.]+)", printed, re.M):
        if what.isdecimal():
            found[precision].append(float(number))
        elif what == "mean":
            assert float(number) == pytest.approx(statistics.mean(found[precision]), abs=0.01)
    assert [len(scores) for scores in found.values()] == [2, 2]
    assert all(0 < score <= 100 for scores in found.values() for score in scores)


def check_training(printed: str) -> None:
    rows = table(printed)
    names = {"(a) public example", "ckpt classic fp32", "ckpt classic auto", "ckpt fast auto"}
    names |= {"(c) by hand, fp32", "(c) by hand, bf16"}
    assert names <= set(rows)
    assert all(0 < float(rows[name][-1].rstrip("%")) <= 100 for name in names)
    assert "(b) Fabric 32-true" in rows or "lightning-fabric is not installed" in printed


def check_tips(printed: str) -> None:
    rows = table(printed)
    accuracies = [cells[3] for cells in rows.values() if len(cells) == 4 and "%" in cells[3]]
    assert len(accuracies) == 14
    assert {"bf16 autocast", "wrong: not divided", "validation in inference mode"} <= set(rows)
    assert "bytes of all tensors kept: True" in printed


def check_sharing(printed: str) -> None:
    rows = table(printed)
    origin, git, objects, *_ = map(float, rows["in git"])
    assert min(origin, git, objects) > 1  # two versions of 1 MB share nine tenths
    assert max(origin, git, objects) < 1.5
    assert max(map(float, rows["--store"][:3])) < 0.5
    assert "Git LFS" in rows or "git-lfs is not installed" in printed


def check_remotes(printed: str) -> None:
    """Requests are no matter of time: a pack or two in place of 300 uploads."""
    to_folder, to_s3, small_to_folder, small_to_s3, _ = printed.split("\n\n", 4)
    assert {"obstore, one file", "ckpt push"} <= set(table(to_folder)) & set(table(small_to_folder))
    for each in (to_s3, small_to_s3):
        rows = table(each)
        assert rows["obstore, one file"][-1] == rows["boto3, one file"][-1] == "1"
        assert 0 < int(rows["ckpt push"][-1]) < 20


def check_before(printed: str) -> None:
    rows = table(printed)
    wanted = {"--version", "rename v1", "show 30 keys", "rename 30 keys, .pt", "diff 1 MB"}
    assert wanted <= set(rows)
    assert all(float(rows[name][-1]) > 0 for name in wanted)


CHECKS: dict[str, Callable[[str], None]] = {
    "startup": check_startup,
    "before": check_before,
    "diff": check_diff,
    "large": check_large,
    "scale": check_scale,
    "registry": check_registry,
    "remotes": check_remotes,
    "sharing": check_sharing,
    "peers": check_peers,
    "infer": check_infer,
    "infer_many": check_infer_many,
    "thresholds": check_thresholds,
    "guard": check_guard,
    "migrations": check_migrations,
    "more_pairs": check_more_pairs,
    "seeds": check_seeds,
    "training": check_training,
    "tips": check_tips,
}


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.stem != "score"], ids=lambda path: path.stem
)
def test_script_runs_in_its_shortest_form(script: Path, tmp_path: Path) -> None:
    printed = run(sys.executable, script, "--quick", folder=tmp_path)
    CHECKS[script.stem](printed)


def test_score_is_what_the_training_registered(tmp_path: Path) -> None:
    words = ["train", "--register", "--dataset", "digits", "--epochs", "1", "--precision", "fp32"]
    run("ckpt", *words, folder=tmp_path)
    score = ROOT / "examples" / "score.py"
    printed = run(sys.executable, score, "v1", "ckpt.models.mnist_cnn:Net", folder=tmp_path)
    index = json.loads((tmp_path / "registry.json").read_text())
    metrics = index["models"]["mnist-cnn"]["versions"]["v1"]["metrics"]
    found = re.fullmatch(r"(\d+) of 360 right: accuracy (\S+), loss (\S+)\n", printed)
    assert found
    assert float(found[2]) == metrics["accuracy"] == int(found[1]) / 360
    assert float(found[3]) == pytest.approx(metrics["loss"], rel=1e-5)
