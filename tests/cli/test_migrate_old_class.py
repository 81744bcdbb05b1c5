"""`ckpt migrate new` runs the old class where a revision or a version has it.

The old class and the new one both import a module `layers`, which differs between revisions: one
process could not have both.
"""

from pathlib import Path

import pytest
import torch

import ckpt as package
from tests.cli.support import Git, Run, commit
from tests.migrate.classes import class_in

NET = """
from torch import nn
from layers import activation


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)

    def forward(self, images):
        return self.conv2(activation(self.conv1(images)))
"""
LAYERS = "def activation(x):\n    return x.tanh()\n"
SAME = "def activation(x):\n    return 2 * (2 * x).sigmoid() - 1\n"  # as tanh is defined
OTHER = "def activation(x):\n    return x.sigmoid()\n"
NEW = ("migrate", "new", "net.py:Net", "-m", "embed", "--from")
WRITTEN = "migrations/embed.toml"


@pytest.fixture
def net(folder: Path, git: Git) -> Path:
    """`net.py`, whose last commit has the class before its refactoring."""
    (folder / "net.py").write_text(NET)
    (folder / "layers.py").write_text(LAYERS)
    commit(git)
    (folder / "net.py").write_text(NET.replace("conv", "embed"))
    (folder / "layers.py").write_text(SAME)
    return folder / "net.py"


def registered(folder: Path, source: str, definition: str = "net.py:Net") -> None:
    """A version `net`, as `ckpt train --register` records the class that it trained."""
    torch.save(
        {f"conv{n}.{name}": torch.zeros(shape) for n, channels in ((1, 1), (2, 4))
         for name, shape in (("weight", (4, channels, 3, 3)), ("bias", (4,)))},
        folder / "net.pt",
    )  # fmt: skip
    record = {"training": {"recipe": {"model": definition}}}
    package.register(folder / "net.pt", definition_source=source, record=record)


@pytest.mark.long
def test_class_of_a_revision_is_run(net: Path, ckpt: Run, folder: Path) -> None:
    ran = ckpt(*NEW, "git:HEAD")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out
    assert "not proved" not in ran.out
    assert "how = 'proved'" in (folder / WRITTEN).read_text()


@pytest.mark.long
def test_class_of_a_revision_that_computes_otherwise_is_refused(
    net: Path, ckpt: Run, folder: Path
) -> None:
    (folder / "layers.py").write_text(OTHER)
    ran = ckpt(*NEW, "git:HEAD")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: net.py:Net at ")
    assert "give different outputs" in ran.err
    assert "they first differ at conv2 and embed2" in ran.err
    assert not (folder / WRITTEN).exists()


@pytest.mark.long
def test_class_of_a_version_is_run_as_the_history_has_it(
    net: Path, ckpt: Run, folder: Path
) -> None:
    registered(folder, NET)
    ran = ckpt(*NEW, "net")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out


@pytest.mark.long
def test_class_of_a_version_is_run_with_the_modules_of_its_commit(
    net: Path, ckpt: Run, folder: Path, git: Git
) -> None:
    """The file is the same in both commits, and what it imports is not."""
    (folder / "net.py").write_text(NET)
    (folder / "layers.py").write_text(OTHER)
    commit(git)
    registered(folder, NET)
    (folder / "net.py").write_text(NET.replace("conv", "embed"))
    ran = ckpt(*NEW, "net")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out


@pytest.mark.long
def test_class_that_only_a_version_has_is_run_if_asked_for(
    net: Path, ckpt: Run, folder: Path
) -> None:
    alone = NET.replace("from layers import activation", "from torch import tanh as activation")
    registered(folder, f"open({str(folder / 'ran')!r}, 'w')\n{alone}")
    ran = ckpt(*NEW, "net", "--dry-run")
    assert ran.code == 0, ran.err
    line = "  not proved: no commit here has the source that net:v1 stores:  --run-stored  runs it"
    assert line in ran.out.splitlines()
    assert not (folder / "ran").exists()
    ran = ckpt(*NEW, "net", "--run-stored")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out
    assert (folder / "ran").exists()


def test_function_that_a_version_names_is_not_run(
    net: Path, ckpt: Run, folder: Path, git: Git
) -> None:
    tools = f"def remove():\n    open({str(folder / 'ran')!r}, 'w')\n"
    (folder / "tools.py").write_text(tools)
    commit(git)
    registered(folder, tools, "tools.py:remove")
    ran = ckpt(*NEW, "net", "--run-stored", "--dry-run")
    assert ran.code == 0, ran.err
    assert "not proved: tools.py:remove: the source that net:v1 stores has no such class" in ran.out
    assert not (folder / "ran").exists()


def test_number_of_the_new_class_is_that_of_its_weights(ckpt: Run, folder: Path) -> None:
    """The new class refuses weights of an older number, and its migration is not there yet."""
    text = NET.replace("from layers import activation", "from torch import tanh as activation")
    numbered = "import ckpt\n" + text.replace("class Net", "@ckpt.migrating\nclass Net")
    for number in (1, 2):
        body = numbered.replace("    def __init__", f"    ckpt_schema = {number}\n    def __init__")
        file = folder / ("old.py" if number == 1 else "net.py")
        class_in(file, body if number == 1 else body.replace("conv", "embed"))
    ran = ckpt(*NEW, "old.py:Net")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out


def test_state_beside_the_tensors_does_not_hinder_a_proof(ckpt: Run, folder: Path) -> None:
    text = NET.replace("from layers import activation", "from torch import tanh as activation")
    text += "\n    def get_extra_state(self):\n        return {'a': 1}\n"
    text += "\n    def set_extra_state(self, state):\n        assert state == {'a': 1}\n"
    class_in(folder / "old.py", text)
    class_in(folder / "net.py", text.replace("conv", "embed"))
    ran = ckpt(*NEW, "old.py:Net")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out


SMALL = NET.replace(
    "        return self", "        assert images.shape == (2, 1, 9, 9)\n        return self"
)


@pytest.fixture
def small(net: Path, git: Git) -> Path:
    """Classes that run on one size of images alone."""
    net.write_text(SMALL)
    (net.parent / "layers.py").write_text(LAYERS)
    commit(git)
    net.write_text(SMALL.replace("conv", "embed"))
    return net


@pytest.mark.long
@pytest.mark.parametrize("source", ["git:HEAD", "old.py:Net"])
def test_input_is_what_both_classes_run_on(
    source: str, small: Path, ckpt: Run, folder: Path
) -> None:
    (folder / "old.py").write_text(SMALL)
    ran = ckpt(*NEW, source, "--dry-run")
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.out.splitlines() if "proved" in line]
    assert "  not proved: net.py:Net" in line or "  not proved: old.py:Net" in line
    assert line.endswith("(2, 1, 28, 28):  --input 1x3x224x224  sets the shape of the input")
    ran = ckpt(*NEW, source, "--input", "2x1x9x9")
    assert ran.code == 0, ran.err
    assert "  proved: outputs agree on one input" in ran.out
    assert "how = 'proved'" in (folder / WRITTEN).read_text()


@pytest.mark.long
@pytest.mark.parametrize("source", ["git:HEAD", "old.py:Net"])
def test_input_that_a_class_refuses_is_an_error(
    source: str, small: Path, ckpt: Run, folder: Path
) -> None:
    (folder / "old.py").write_text(SMALL)
    ran = ckpt(*NEW, source, "--input", "1x1x8x8")
    assert (ran.code, ran.out) == (3, "")
    assert "AssertionError" in ran.err
    ran = ckpt(*NEW, source, "--input", "images=2x1x9x9", "--input", "other=1x1")
    assert (ran.code, ran.out) == (3, "")
    assert "'other'" in ran.err
    assert not (folder / WRITTEN).exists()


def test_input_that_cannot_be_used_is_refused(net: Path, ckpt: Run, folder: Path) -> None:
    ran = ckpt(*NEW, "git:HEAD", "--input", "2xlx9")
    assert (ran.code, ran.out) == (2, "")
    assert "'2xlx9' is not an input like 1x3x224x224" in ran.err
    ran = ckpt(*NEW, "git:HEAD", "--input", "2x1x9x9", "--no-prove")
    assert (ran.code, ran.out) == (2, "")
    assert "--input is for a proof, which --no-prove leaves out" in ran.err


@pytest.mark.long
def test_timeout_says_how_long_the_old_class_may_take(
    net: Path, ckpt: Run, folder: Path, git: Git
) -> None:
    net.write_text(f"import time\ntime.sleep(600)\n{NET}")
    commit(git)
    net.write_text(NET.replace("conv", "embed"))
    ran = ckpt(*NEW, "git:HEAD", "--timeout", "2")
    assert (ran.code, ran.out) == (3, "")
    assert "net.py:Net: takes more than 2 s to build" in ran.err
    assert "hint:  --timeout SECONDS  gives it more time" in ran.err
    assert not (folder / WRITTEN).exists()
