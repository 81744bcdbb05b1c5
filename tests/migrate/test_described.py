"""Definitions are built in another process, whatever their code does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckpt.definitions import find_definition
from ckpt.migrate.described import Builder, BuildError, MissingDefinitionError, as_called
from ckpt.tensors import StateDict, TensorEntry

HOSTILE = """
import os, signal, subprocess, sys, time
from torch import nn

print("from Python")
os.write(1, b"from C\\n")

class Net(nn.Module):
    ckpt_schema = 3
    def __init__(self, width=2):
        super().__init__()
        self.fc = nn.Linear(width, width)

class Asks(nn.Linear):
    def __init__(self):
        assert input("continue? ")

class Hangs(nn.Module):
    def __init__(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("pids", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename("pids", "started")
        while True:
            time.sleep(60)

class Crashes(nn.Module):
    def __init__(self):
        os.kill(os.getpid(), signal.SIGSEGV)

class Exits(nn.Module):
    def __init__(self):
        os._exit(0)

class Raises(nn.Module):
    def __init__(self):
        raise KeyError("no such layer")

class Quits(nn.Module):
    def __init__(self):
        sys.exit(0)

class Interrupts(nn.Module):
    def __init__(self):
        raise KeyboardInterrupt

class Closes(nn.Module):
    def __init__(self):
        os.closerange(3, 100)

class Writes(nn.Module):
    def __init__(self):
        for number in range(3, 10):
            try:
                os.write(number, b"x\\n")
            except OSError:
                pass
"""


@pytest.fixture
def hostile(folder: Path) -> Path:
    (folder / "net.py").write_text(HOSTILE)
    return folder


@pytest.fixture
def builder(hostile: Path) -> Iterator[Builder]:
    with Builder(hostile, seconds=300) as made:
        yield made


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(path: Path) -> str:
    while not path.exists():
        time.sleep(0.02)
    return path.read_text()


@pytest.mark.long
def test_description_is_the_state_dict_of_torch(builder: Builder) -> None:
    described = builder.describe("net.py:Net", {"width": 3})
    assert described.ref == "net.py:Net(width=3)"
    module = find_definition("net.py:Net(width=3)").build()
    real = module.state_dict()
    assert [(it.key, it.shape) for it in described.state.entries] == [
        (key, tuple(tensor.shape)) for key, tensor in real.items()
    ]
    assert described.schema.number == 3
    assert described.file == Path("net.py").absolute()


@pytest.mark.long
def test_what_a_definition_prints_goes_to_stderr(
    builder: Builder, capfd: pytest.CaptureFixture[str]
) -> None:
    builder.describe("net.py:Net")
    out, err = capfd.readouterr()
    assert out == ""
    assert "from Python\n" in err
    assert "from C\n" in err


def test_answer_is_that_of_torchs_strict_loader(builder: Builder) -> None:
    given = {"fc.weight": torch.zeros(2, 2), "head": torch.zeros(1)}
    entries = tuple(TensorEntry(key, "float32", tuple(it.shape)) for key, it in given.items())
    answer = builder.ask("net.py:Net", StateDict(entries))
    with pytest.raises(RuntimeError) as refused:
        find_definition("net.py:Net").build().load_state_dict(given)
    assert answer.missing == ("fc.bias",)
    assert answer.unexpected == ("head",)
    assert '"fc.bias"' in str(refused.value)
    assert '"head"' in str(refused.value)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Crashes", "net.py:Crashes: its code ended the process that builds it, with SIGSEGV"),
        ("Exits", "net.py:Exits: its code ended the process that builds it, with exit code 0"),
        ("Raises", "net.py:Raises: raises KeyError: 'no such layer'"),
        ("Asks", "net.py:Asks: raises EOFError: EOF when reading a line"),
        ("Quits", "net.py:Quits: raises SystemExit: 0"),
        ("Interrupts", "net.py:Interrupts: raises KeyboardInterrupt"),
        ("Closes", "net.py:Closes: its code ended the process that builds it, with exit code 1"),
        ("Writes", "net.py:Writes: its code writes to a file descriptor that is not its own"),
    ],
)
def test_code_that_fails_is_one_line_and_the_next_definition_is_built(
    builder: Builder, capfd: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    with pytest.raises(BuildError) as failed:
        builder.describe(f"net.py:{name}")
    assert str(failed.value) == says
    assert "Traceback" not in capfd.readouterr().err
    assert failed.value.exit_code == 3
    assert builder.describe("net.py:Net").schema.number == 3


@pytest.mark.long
@pytest.mark.parametrize("ref", ["net.py:Nett", "nett.py:Net", "no_such_module:Net"])
def test_missing_definition_is_told_from_one_that_fails(builder: Builder, ref: str) -> None:
    with pytest.raises(MissingDefinitionError):
        builder.describe(ref)


@pytest.mark.long
def test_definition_that_takes_too_long_is_killed_with_its_processes(hostile: Path) -> None:
    with Builder(hostile, seconds=300) as builder:
        builder.describe("net.py:Net")  # torch is imported now
        builder._seconds = 1.0
        with pytest.raises(BuildError, match="takes more than 1 s to build") as late:
            builder.describe("net.py:Hangs")
    assert late.value.hint == "--timeout SECONDS  gives it more time"
    for pid in map(int, wait_for(hostile / "started").split()):
        while is_alive(pid):
            time.sleep(0.02)


@pytest.mark.long
def test_fault_39_ctrl_c_ends_the_process_that_builds(hostile: Path) -> None:
    words = [sys.executable, "-m", "ckpt", "guard", "--snapshot", "net.py:Hangs"]
    with subprocess.Popen(words, cwd=hostile, stderr=subprocess.PIPE, text=True) as process:
        pids = wait_for(hostile / "started").split()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().endswith("error: interrupted\n")
    assert process.returncode == 130
    for pid in map(int, pids):
        while is_alive(pid):
            time.sleep(0.02)
    assert not (hostile / "migrations").exists()


@pytest.mark.long
def test_missing_torch_is_one_line(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hostile / "without" / "torch").mkdir(parents=True)
    (hostile / "without" / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named torch', name='torch')"
    )
    monkeypatch.setenv("PYTHONPATH", str(hostile / "without"))
    with Builder(hostile, seconds=300) as builder, pytest.raises(BuildError) as failed:
        builder.describe("net.py:Net")
    assert "No module named torch" in str(failed.value)
    assert failed.value.hint == (
        f"{sys.prefix} has no torch; install ckpt beside your project's packages"
    )


@pytest.mark.long
def test_file_of_the_project_does_not_hide_a_module_of_python(hostile: Path) -> None:
    (hostile / "json.py").write_text("raise SystemExit('hidden')")
    (hostile / "ckpt").mkdir()
    (hostile / "ckpt" / "__init__.py").write_text("raise SystemExit('hidden')")
    (hostile / "other.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\n")
    with Builder(hostile, seconds=300) as builder:
        assert len(builder.describe("other.py:Net(in_features=1, out_features=1)").state.keys) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("ref", "arguments", "called"),
    [
        ("net.py:Net", {}, "net.py:Net"),
        ("net.py:Net", {"a": 1, "b": "x"}, "net.py:Net(a=1, b='x')"),
        ("net.py:Net(a=1)", {"b": (2,)}, "net.py:Net(a=1, b=(2,))"),
    ],
)
def test_arguments_are_part_of_the_ref(ref: str, arguments: dict[str, object], called: str) -> None:
    assert as_called(ref, arguments) == called


@pytest.mark.long
def test_process_that_asks_imports_no_torch(hostile: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom ckpt.migrate.described import Builder\n"
        "with Builder(Path.cwd(), seconds=300) as builder:\n"
        "    builder.describe('net.py:Net')\n"
        "sys.exit(len({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=hostile).returncode == 0


@pytest.mark.long
def test_request_ends_by_itself_if_the_process_that_asked_was_killed(hostile: Path) -> None:
    script = (
        "from pathlib import Path\nfrom ckpt.migrate.described import Builder\n"
        "Builder(Path.cwd(), seconds=60).describe('net.py:Net')\n"
        "Builder(Path.cwd(), seconds=1).describe('net.py:Hangs')"
    )
    script = script.replace("seconds=1)", "seconds=20)")
    with subprocess.Popen([sys.executable, "-c", script], cwd=hostile) as process:
        builder, other = map(int, wait_for(hostile / "started").split())
        process.kill()
    while is_alive(builder):
        time.sleep(0.1)
    os.kill(other, signal.SIGKILL)
