"""Measure a large checkpoint in ckpt beside DVC, Git LFS, restic, borg and MLflow.

    python benchmarks/peers.py [--megabytes 500] [--versions 1000] [--runs 3] [--tools ckpt dvc …]
                               [--environments DIR] [--folder DIR] [--picture FILE.svg] [--quick]

Three versions are stored one after the other: a file of 100 tensors, the same with one tensor
changed, and the same under other keys. Then the first is restored, all is verified, and the
versions are listed; where a tool lists versions with their metrics, so are 1,000 small ones. DVC
and MLflow are installed by pip, each into an environment of its own; the others are taken from the
PATH (``apt-get install git-lfs restic borgbackup``). A tool that cannot be had is left out, and
named.

Of each step the median of the runs is printed: seconds of CPU and wall, bytes written as the
kernel counts them for the command and its children, and the largest peak of memory. A step ends
with a sync of the disk, which counts as wall time: some tools leave their files to the system.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quick import parse_options
from tabulate import tabulate

TENSORS = 100
STEPS = ("v1", "v2", "v3", "restore", "verify", "list", "many", "start")
MAKE = f"""
import os, sys, torch
count = int(float(sys.argv[1]) * 1e6 / 4 / {TENSORS})
state = {{f"layer{{at}}.weight": torch.rand(count) for at in range({TENSORS})}}
for version in ("v1", "v2", "v3"):
    os.mkdir(version)  # the archive has the name of its file inside
torch.save(state, "v1/net.pt")
state["layer7.weight"] = state["layer7.weight"] + 1
torch.save(state, "v2/net.pt")
torch.save({{key.replace("layer", "block"): state[key] for key in state}}, "v3/net.pt")
"""
CKPT_MORE = """
import os, torch, ckpt
for at in range(int(os.environ["MORE"])):
    torch.save({"weight": torch.full((8,), float(at))}, "net.pt")
    ckpt.register("net.pt", metrics={"accuracy": 0.99})
"""
GIT = "git add -A && git commit -qm"
MLFLOW_STORE = """
import sys, mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
with mlflow.start_run(run_name=sys.argv[1]) as run:
    mlflow.log_artifact("net.pt")
open(sys.argv[1], "w").write(run.info.run_id)
"""
MLFLOW_RESTORE = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
run = open("v1").read()
mlflow.artifacts.download_artifacts(run_id=run, artifact_path="net.pt", dst_path="out")
"""
MLFLOW_LIST = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
print(mlflow.search_runs(output_format="list"))
"""
MLFLOW_MORE = """
import os, mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
open("small", "wb").write(bytes(32))
for at in range(int(os.environ["MORE"])):
    with mlflow.start_run():
        mlflow.log_metric("accuracy", 0.99)
        mlflow.log_artifact("small")
"""


@dataclass(frozen=True)
class Tool:
    """How one tool does it, in a folder of its own; `net.pt` there is the file of each version.

    Attributes:
        begin: The command that sets up an empty store.
        steps: The command of each step; a step that it lacks is left out.
        more: The command that adds ``$MORE`` small versions, before the step ``many``.
        restored: Where the first version is after `restore`.
        package: What pip installs for it, if not from the PATH.
    """

    begin: str
    steps: dict[str, str]
    more: str = "true"
    restored: str = "net.pt"
    package: str = ""


def git_steps(add: str, checkout: str) -> dict[str, str]:
    """The steps of a tool that lives in a git repository."""
    return {
        **{each: f"{add} && {GIT} {each} && git tag {each}" for each in STEPS[:3]},
        "restore": f"rm -f net.pt && git checkout -q v1 && {checkout}",
    }


TOOLS = {
    "ckpt": Tool(
        "true",
        {
            "v1": "ckpt register net.pt -q",
            "v2": "ckpt register net.pt -q",
            "v3": "ckpt rename net:v2 --rule layer=block -q",
            "restore": "ckpt export net:v1 -o out.pt -q",
            "verify": "ckpt verify",
            "list": "ckpt ls",
            "many": "ckpt ls",
            "start": "ckpt --version",
        },
        more='python -c "$CKPT_MORE"',
        restored="out.pt",
    ),
    "dvc": Tool(
        "git init -q && dvc init -q && "
        "dvc config core.analytics false && dvc config core.check_update false",
        {
            **git_steps("dvc add -q net.pt", "dvc checkout -q"),
            "list": "dvc list .",
            "start": "dvc --version",
        },
        package="dvc",
    ),
    "git-lfs": Tool(
        "git init -q && git lfs install --local --skip-smudge && git lfs track '*.pt'",
        {
            **git_steps("true", "git lfs checkout"),
            "verify": "git lfs fsck",
            "list": "git log --oneline v3",
            "start": "git lfs version",
        },
    ),
    "restic": Tool(
        "restic init -q",
        {
            **{each: f"restic backup -q --tag {each} net.pt" for each in STEPS[:3]},
            "restore": "restic restore -q --tag v1 --target out latest",
            "verify": "restic check -q --read-data",
            "list": "restic snapshots",
            "start": "restic version",
        },
        restored="out/net.pt",
    ),
    "borg": Tool(
        "borg init -e none store",
        {
            **{each: f"borg create store::{each} net.pt" for each in STEPS[:3]},
            "restore": "mkdir out && cd out && borg extract ../store::v1",
            "verify": "borg check --verify-data store",
            "list": "borg list store",
            "start": "borg --version",
        },
        restored="out/net.pt",
    ),
    "mlflow": Tool(
        "true",
        {
            **{each: f'python -c "$STORE" {each}' for each in STEPS[:3]},
            "restore": 'python -c "$RESTORE"',
            "list": 'python -c "$LIST"',
            "many": 'python -c "$LIST"',
            "start": "mlflow --version",
        },
        more='python -c "$MLFLOW_MORE"',
        restored="out/net.pt",
        package="mlflow",
    ),
}


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds of CPU and wall, bytes written, bytes of peak memory."""

    cpu: float
    wall: float
    written: float
    memory: float


def main() -> None:
    """Make the files, install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--versions", type=int, default=1000, help="of which a list is measured")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    kept = Path(tempfile.gettempdir()) / "ckpt-peers"
    parser.add_argument("--environments", type=Path, default=kept)
    parser.add_argument("--folder", type=Path, help="where the files and stores are made")
    parser.add_argument("--picture", type=Path, help="an SVG of CPU time and disk")
    options = parse_options(parser, megabytes=4, versions=5, runs=1, tools=["ckpt"])
    paths = dict(found(options.tools, options.environments))
    costs: dict[str, dict[str, list[Cost]]] = {name: {} for name in paths}
    disk: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        subprocess.run(
            [sys.executable, "-c", MAKE, str(options.megabytes)], cwd=scratch, check=True
        )
        for _ in range(options.runs):
            for name, path in paths.items():  # in turns, since machines have moods
                more = options.versions - 3
                disk[name] = measure(TOOLS[name], path, Path(scratch), costs[name], more)
    print_costs(costs, disk, options.versions)
    print(f"\na file of {options.megabytes:g} MB; medians of {options.runs} runs")
    if options.picture:
        draw(costs, disk, options.picture)


def found(names: list[str], environments: Path) -> Iterator[tuple[str, str]]:
    """The tools that are here, with the PATH that finds them."""
    for name in names:
        bin_folder = Path(sys.executable).parent
        if package := TOOLS[name].package:
            bin_folder = environments / package / "bin"
            if not (bin_folder / name).exists():
                venv.create(environments / package, with_pip=True)
                pip = [str(bin_folder / "python"), "-m", "pip", "install", "-q", package]
                if subprocess.run(pip).returncode:
                    print(f"{name}: left out, pip cannot install it")
                    continue
        elif shutil.which(name) is None and name != "ckpt":
            print(f"{name}: left out, not on the PATH")
            continue
        yield name, f"{bin_folder}{os.pathsep}{os.environ['PATH']}"


def measure(tool: Tool, path: str, scratch: Path, costs: dict[str, list[Cost]], more: int) -> int:
    """Add the costs of each step, and return the bytes of the store after three versions.

    Before the step ``many``, `more` small versions are added to the three.
    """
    folder = scratch / "tool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    environment = {
        **{name: text for name, text in os.environ.items() if name != "CKPT_REGISTRY"},
        **{"PATH": path, "HOME": str(folder), "RESTIC_REPOSITORY": "store"},
        **{"RESTIC_PASSWORD": "x", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"},
        **{"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"},
        **{
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
            "MLFLOW_DISABLE_TELEMETRY": "1",
        },
        **{"STORE": MLFLOW_STORE, "RESTORE": MLFLOW_RESTORE, "LIST": MLFLOW_LIST},
        **{"CKPT_MORE": CKPT_MORE, "MLFLOW_MORE": MLFLOW_MORE, "MORE": str(more)},
    }
    cost_of(tool.begin, folder, environment)
    size = 0
    for step in (step for step in STEPS if step in tool.steps):
        if step in STEPS[:3]:
            (folder / "net.pt").unlink(missing_ok=True)
            shutil.copy(scratch / step / "net.pt", folder / "net.pt")
            os.sync()
        if step == "many":
            cost_of(tool.more, folder, environment)
        costs.setdefault(step, []).append(cost_of(tool.steps[step], folder, environment))
        if step == "v3":
            size = on_disk(folder) - blocks(folder / "net.pt")
        if step == "restore":
            subprocess.run(["cmp", "v1/net.pt", f"tool/{tool.restored}"], cwd=scratch, check=True)
    return size


def cost_of(command: str, folder: Path, environment: dict[str, str]) -> Cost:
    """Run a command; its bytes written are read before the system forgets the process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        ["bash", "-c", f"set -e\n{command}\ntrue"],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    errors = process.stderr.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    written = dict(line.split(": ") for line in lines)["write_bytes"]
    _, status, usage = os.wait4(process.pid, 0)
    os.sync()
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}\n{errors.decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, int(written), usage.ru_maxrss * 1024)


def on_disk(folder: Path) -> int:
    """Bytes of the blocks of all files in a folder."""
    return sum(blocks(path) for path in folder.rglob("*") if path.is_file())


def blocks(path: Path) -> int:
    """Bytes of a file's blocks."""
    return 512 * path.lstat().st_blocks


def median(costs: list[Cost]) -> list[float]:
    """The median of each figure; of memory the most."""
    return [
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.written for cost in costs) / 1e6,
        max(cost.memory for cost in costs) / 1e6,
    ]


def print_costs(
    costs: dict[str, dict[str, list[Cost]]], disk: dict[str, int], versions: int
) -> None:
    """A line for each tool and step, and the stores."""
    rows: list[list[object]] = []
    for step in STEPS:
        for name, steps in costs.items():
            if step in steps:
                what = f"list {versions:,}" if step == "many" else step
                rows.append([f"{what} {name}", *median(steps[step])])
    heads = ["", "CPU s", "wall s", "written MB", "peak MB"]
    print(tabulate(rows, heads, floatfmt=("", ".2f", ".2f", ",.1f", ",.0f")))
    stores = [[name, size / 1e6] for name, size in disk.items()]
    print("\n" + tabulate(stores, ["store of three versions", "MB"], floatfmt=",.0f"))


def draw(costs: dict[str, dict[str, list[Cost]]], disk: dict[str, int], path: Path) -> None:
    """Bars of CPU time and of the store."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "peers", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
    names = list(costs)
    for at, step in enumerate(STEPS[:3]):
        seconds = [median(costs[name][step])[0] for name in names]
        left.bar([x + 0.27 * (at - 1) for x in range(len(names))], seconds, 0.25, label=step)
    left.set_title("CPU seconds", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    right.bar(range(len(names)), [disk[name] / 1e6 for name in names], 0.5, color="tab:gray")
    right.set_title("MB on disk after three versions", fontsize=9)
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
