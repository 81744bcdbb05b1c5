"""`pytest --ckpt-guard`, run by pytest itself in a project of its own."""

import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = "pytester"

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(2, 2)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml('[tool.ckpt]\nguard = ["net.py:Net"]\n')
    (pytester.path / "net.py").write_text(NET)
    pytester.makepyfile("def test_of_the_project(): pass")
    return pytester


def run(project: pytest.Pytester, *words: str) -> pytest.RunResult:
    options = ("-p", "ckpt.pytest_plugin", "-p", "no:randomly", "-p", "no:cacheprovider")
    return project.runpytest_subprocess(*options, *words)


@pytest.mark.long
def test_plugin_is_an_entry_point() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    (name,) = tomllib.loads(text)["project"]["entry-points"]["pytest11"].items()
    assert name == ("ckpt.pytest_plugin", "ckpt.pytest_plugin")
    installed = {it.name for it in entry_points(group="pytest11") if "ckpt" in it.value}
    assert installed <= {"ckpt.pytest_plugin"}


@pytest.mark.long
def test_class_is_a_test_that_passes_and_then_fails(project: pytest.Pytester) -> None:
    result = run(project)
    result.assert_outcomes(passed=1)  # not asked for
    result = run(project, "--ckpt-guard")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*net.py:Net: nothing to load*", "ckpt guard --snapshot net.py:Net"]
    )
    done = project.run(sys.executable, "-m", "ckpt", "guard", "--snapshot")
    assert done.ret == 0
    run(project, "--ckpt-guard").assert_outcomes(passed=2)
    (project.path / "net.py").write_text(NET.replace("conv1", "embed1"))
    result = run(project, "--ckpt-guard", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "pyproject.toml::guard?net.py:Net? FAILED*",
            "net.py:Net no longer loads snapshot *Net.json",
            "*conv1.weight  ->  embed1.weight*",
            "To keep old checkpoints loading:  ckpt guard --fix",
        ]
    )
    assert "Traceback" not in result.stdout.str()


@pytest.mark.long
def test_broken_settings_are_a_usage_error(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("[tool.ckpt]\nguard = [1]\n")
    result = run(project, "--ckpt-guard")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tool.ckpt.guard*0*: expected a string, found 1"])


@pytest.mark.long
def test_plugin_imports_nothing_of_ckpt_unless_asked(project: pytest.Pytester) -> None:
    project.makepyfile(
        "import sys\ndef test_modules():\n"
        "    names = {name for name in sys.modules if name.partition('.')[0] == 'ckpt'}\n"
        "    assert names == {'ckpt', 'ckpt.pytest_plugin'}\n"
        "    assert 'torch' not in sys.modules\n"
    )
    run(project).assert_outcomes(passed=1)
