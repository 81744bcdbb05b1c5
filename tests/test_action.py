"""What `action.yml` and `.pre-commit-hooks.yaml` run, run here in a repository of its own.

The service that comments are sent to is out of reach: a program that notes what it is told stands
for its client.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import folder, git  # noqa: F401 - fixtures
from tests.cli.support import Git, commit

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".github" / "guard.sh"
CLIENT = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word" >>"$NOTED"; done
printf '\\n\\n' >>"$NOTED"
[ "$2" = --paginate ] && cat "$EARLIER"
exit 0
"""
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(2, 2)
"""


@pytest.fixture
def pull(git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A clone with the branch of a pull request, and the environment of a job."""
    (folder / "up").mkdir()
    (folder / "up" / "net.py").write_text(NET)
    (folder / "up" / "pyproject.toml").write_text('[tool.ckpt]\nguard = ["net.py:Net"]\n')
    commit(git)
    programs = folder / "programs"
    programs.mkdir()
    (programs / "gh").write_text(CLIENT)
    (programs / "gh").chmod(0o755)
    git("clone", "-q", "--no-local", "--depth=1", f"file://{folder}", "job")
    (folder / "earlier").write_text("")
    for name, value in {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NOTED": str(folder / "noted"),
        "EARLIER": str(folder / "earlier"),
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_BASE_REF": "main",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "CKPT_PYTHON": sys.executable,
    }.items():
        monkeypatch.setenv(name, value)
    return folder / "job" / "up"


def run(where: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", str(SCRIPT)], cwd=where, capture_output=True, text=True)


def requests(where: Path) -> list[list[str]]:
    noted = (where.parent.parent / "noted").read_text()
    return [it.split("\0")[:-1] for it in noted.split("\n\n") if it and it.endswith("\0")]


@pytest.mark.long
def test_pull_request_that_breaks_checkpoints_fails_and_gets_a_comment(pull: Path) -> None:
    assert run(pull).returncode == 0
    (pull / "net.py").write_text(NET.replace("conv1", "embed1"))
    done = run(pull)
    assert (done.returncode, done.stderr) == (1, "")
    assert "::error file=up/net.py,line=4,title=net.py%3ANet no longer loads" in done.stdout
    text = (pull.parent.parent / "noted").read_text()
    assert "--method\0POST\0repos/owner/name/issues/12/comments\0" in text
    assert "body=<!-- ckpt guard -->\n### Old checkpoints no longer load" in text
    assert "checkpoints of origin/main" in (pull.parent.parent / "summary").read_text()

    (pull.parent.parent / "earlier").write_text("77\n")
    (pull / "net.py").write_text(NET)
    assert run(pull).returncode == 0
    text = (pull.parent.parent / "noted").read_text()
    assert "--method\0PATCH\0repos/owner/name/issues/comments/77\0" in text
    assert text.rstrip("\0\n").partition("PATCH")[2].count("### Old checkpoints load") == 1


@pytest.mark.long
def test_class_that_cannot_be_built_fails_without_a_comment(pull: Path) -> None:
    (pull / "net.py").write_text("import no_such_package\n")
    assert run(pull).returncode == 3
    assert not (pull.parent.parent / "noted").exists()


@pytest.mark.long
def test_named_classes_reach_the_command_as_they_are(
    pull: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_DEFINITIONS", "net.py:Net\n$(touch canary); rm x\n")
    done = run(pull)
    assert "$(touch canary); rm x" in done.stderr
    assert not (pull / "canary").exists()


@pytest.mark.long
def test_action_passes_inputs_by_the_environment_alone() -> None:
    """An expression in a script would be code that a pull request can write."""
    text = (ROOT / "action.yml").read_text()
    (script,) = re.findall(r"^ *(?:- )?run: (.*)$", text, re.MULTILINE)
    assert script == 'bash "$GITHUB_ACTION_PATH/.github/guard.sh"'
    read = set(re.findall(r"\b(?:CKPT_[A-Z]+|GH_TOKEN)\b", SCRIPT.read_text())) | {"GH_TOKEN"}
    assert set(re.findall(r"^ +([A-Z_]+): \$\{\{", text, re.MULTILINE)) == read
    assert "uses: " not in text


@pytest.mark.long
def test_scripts_have_no_findings_of_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def hook() -> list[str]:
    """The command of the hook, as pre-commit runs it."""
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    found = re.search(r"entry: (.*)\n  args: \[(.*)\]", text)
    assert found is not None
    return [*found[1].split(), *found[2].split(", ")]


@pytest.mark.long
def test_hook_compares_with_the_last_commit(pull: Path) -> None:
    assert subprocess.run(hook(), cwd=pull, capture_output=True).returncode == 0
    (pull / "net.py").write_text(NET.replace("conv1", "embed1"))
    done = subprocess.run(hook(), cwd=pull, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no longer loads checkpoints of HEAD" in done.stdout


@pytest.mark.long
def test_hook_runs_in_pre_commit(pull: Path, git: Git) -> None:  # noqa: F811
    if shutil.which("pre-commit") is None:
        pytest.skip("pre-commit is not installed")
    config = {"repo": "local", "hooks": [{**_hook_fields()}]}
    (pull.parent / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [config]}))
    subprocess.run(["git", "add", "-A"], cwd=pull.parent, check=True)
    words = ["pre-commit", "run", "--all-files"]
    assert subprocess.run(words, cwd=pull.parent, capture_output=True).returncode == 0


def _hook_fields() -> dict[str, object]:
    command = hook()
    return {
        "id": "ckpt-guard",
        "name": "guard",
        "language": "system",
        "entry": " ".join(command[:2]),
        "args": [*command[2:], "up/net.py:Net"],
        "pass_filenames": False,
    }
