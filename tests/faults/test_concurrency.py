"""FAULTS 33: many processes at once in one registry."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpt.ops.verify import verify
from ckpt.registry.registry import Registry
from tests.effort import PATIENCE, by_effort
from tests.faults.stage import CKPT, ENVIRONMENT, Scene, copy, save

PROCESSES = by_effort(4, 24, 32)
EACH = by_effort(3, 4, 20)
OF_A_KIND = by_effort(2, 4, 4)  # commands
PATIENT = {**ENVIRONMENT, "CKPT_LOCK_SECONDS": "600"}
REGISTER = """
import sys
from pathlib import Path
from ckpt.ops.register import register
for path in sorted(Path(sys.argv[1]).iterdir()):
    register(path, name="net")
"""
# Until it is told to stop: the numbers have no gap, and none that was seen goes.
READ = """
import sys
from pathlib import Path
from ckpt.registry.registry import Registry
reads, most = 0, 0
while not Path("stop").exists():
    numbers = [version.number for version in Registry(Path()).versions()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), numbers
    assert len(numbers) >= most
    reads, most = reads + 1, len(numbers)
print(reads)
"""


def start(folder: Path, *line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        line, cwd=folder, env=PATIENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_fault_33_each_of_many_writers_gets_numbers_of_its_own(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, files = tmp_path / "registry", tmp_path / "files"
    folder.mkdir()
    for process in range(PROCESSES):
        (files / str(process)).mkdir(parents=True)
        for number in range(EACH):
            save(files / str(process) / f"{number}.safetensors", process * EACH + number)
    readers = [start(folder, sys.executable, "-P", "-c", READ) for _ in range(2)]
    writers = [
        start(folder, sys.executable, "-P", "-c", REGISTER, str(files / str(process)))
        for process in range(PROCESSES)
    ]
    results = [ended(writer) for writer in writers]
    (folder / "stop").touch()
    reads = [ended(reader) for reader in readers]
    assert [code for code, _, _ in (*results, *reads)] == [0] * (PROCESSES + 2), (results, reads)
    registry = Registry(folder)
    versions = registry.versions("net")
    assert [each.number for each in reversed(versions)] == list(range(1, PROCESSES * EACH + 1))
    assert len({each.content for each in versions}) == PROCESSES * EACH
    assert registry.index().serial == PROCESSES * EACH
    assert not verify(registry=registry).damages
    assert (
        len(list(registry.index_file.reflog.chain(registry.index().write_id))) == PROCESSES * EACH
    )
    read = sum(int(out) for _, out, _ in reads)
    figure = f"{PROCESSES} processes x {EACH} registrations: {len(versions)} versions, {read} reads"
    record_property("figure", f"{figure} beside them")


@pytest.mark.long
def test_fault_33_same_bytes_make_one_version(scenes: Callable[[str], Scene], folder: Path) -> None:
    scene = scenes("register")
    copy(scene.template, folder)
    results = [ended(each) for each in [
        start(folder, *CKPT, "register", "new.safetensors", "--name", "net", "--json")
        for _ in range(16)
    ]]  # fmt: skip
    assert [code for code, _, _ in results] == [0] * 16, results
    data = [json.loads(out) for _, out, _ in results]
    assert {each["version"] for each in data} == {"v3"}
    assert [each["new"] for each in data].count(True) == 1
    scene.recovers(folder)


@pytest.mark.long
def test_fault_33_one_of_many_moves_an_alias(scenes: Callable[[str], Scene], folder: Path) -> None:
    scene = scenes("alias")
    copy(scene.template, folder)
    results = [ended(each) for each in [
        start(folder, *CKPT, "alias", "prod", "v2", "--expect", "v1") for _ in range(16)
    ]]  # fmt: skip
    assert {code for code, _, _ in results} == {0}, results
    said = Counter(out.strip() for _, out, _ in results)
    moved, found = "net@prod points to v2 (before: v1)", "net@prod already points to v2"
    assert said == {moved: 1, found: 15}
    scene.recovers(folder)


@pytest.mark.long
def test_fault_33_different_commands_at_once_all_take_effect(
    scenes: Callable[[str], Scene], folder: Path
) -> None:
    copy(scenes("register").template, folder)
    lines = [
        *(("register", "new.safetensors", "--name", f"net{number}") for number in range(OF_A_KIND)),
        *(("rename", "net:v1", "--rule", f"fc=head{number}") for number in range(OF_A_KIND)),
        *(("tag", "net:v1", f"t{number}") for number in range(OF_A_KIND)),
        *(("alias", f"a{number}", "net:v1") for number in range(OF_A_KIND)),
        *(("gc", "--grace", "0", "--yes"),) * OF_A_KIND,
    ]
    running = [start(folder, *CKPT, *line) for line in lines]
    results = [ended(each) for each in running]
    assert [code for code, _, _ in results] == [0] * len(lines), results
    index = Registry(folder).index()
    net = index.models["net"]
    numbers = range(OF_A_KIND)
    assert sorted(net.versions) == [1, 2, *(number + 3 for number in numbers)]
    assert set(net.tags) == {"good", *(f"t{number}" for number in numbers)}
    assert set(net.aliases) == {"prod", *(f"a{number}" for number in numbers)}
    assert len(index.models) == 1 + OF_A_KIND
    assert not verify(registry=Registry(folder)).damages
