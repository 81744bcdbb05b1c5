"""`ckpt blame` and `ckpt log -- KEY`: tensors followed through versions and renames."""

from pathlib import Path

import pytest
import torch

from ckpt.registry.registry import Registry
from tests.cli.support import Run, weights


@pytest.fixture
def five(ckpt: Run, folder: Path) -> Run:
    """v1; v2 with another fc1; v3 that renames v2; v4 a file with v3's keys and another conv1;
    v5 a file whose fc is called head, its tensors v4's."""
    state = weights()
    for version in range(1, 6):
        match version:
            case 2:
                state["fc1.weight"] = state["fc1.weight"] + 1
            case 3:
                assert ckpt("rename", "net:v2", "--rule", "conv=embed").code == 0
                state = {key.replace("conv", "embed"): each for key, each in state.items()}
                continue
            case 4:
                state["embed1.weight"] = state["embed1.weight"] + 1
            case 5:
                state = {key.replace("fc", "head"): each for key, each in state.items()}
        torch.save(dict(state), folder / "net.pt")
        assert ckpt("register", "net.pt").code == 0
    return ckpt


@pytest.mark.parametrize(
    ("key", "ref", "version"),
    [
        ("head1.weight", "v5", "v2"),
        ("head1.bias", "v5", "v1"),
        ("embed1.weight", "v5", "v4"),
        ("embed2.weight", "v5", "v1"),
        ("embed1.weight", "v3", "v1"),
        ("conv1.weight", "v2", "v1"),
        ("fc1.weight", "v1", "v1"),
    ],
)
def test_blame_is_of_the_version_that_made_the_bytes(
    key: str, ref: str, version: str, five: Run
) -> None:
    (found,) = five("blame", key, ref, "--json").data
    assert found["version"] == f"net:{version}"
    assert f"net:{version}" in five("blame", key, ref).out


def test_module_means_all_its_tensors_and_no_ref_the_latest_version(five: Run) -> None:
    found = five("blame", "head1", "--json").data
    assert [(each["key"], each["version"]) for each in found] == [
        ("head1.weight", "net:v2"), ("head1.bias", "net:v1")
    ]  # fmt: skip


def test_log_of_a_key_shows_every_touch(five: Run) -> None:
    touched = five("log", "v5", "--", "head1.weight", "--json")
    assert touched.code == 2, "after -- all words are keys"
    touched = five("log", "v5", "--json", "--", "head1.weight", "embed1.weight").data
    assert [(t["version"], t["did"], t["before"]) for t in touched["head1.weight"]] == [
        ("net:v5", "renamed", "fc1.weight"),
        ("net:v2", "changed", "fc1.weight"),
        ("net:v1", "added", None),
    ]
    assert [(t["version"], t["did"]) for t in touched["embed1.weight"]] == [
        ("net:v4", "changed"), ("net:v3", "renamed"), ("net:v1", "added")
    ]  # fmt: skip
    ran = five("log", "--", "head1.weight")
    assert "renamed, was fc1.weight" in ran.out
    assert ran.out.startswith("head1.weight\n  version")


def test_unknown_key_says_which_are_near(five: Run) -> None:
    ran = five("blame", "head1.wieght")
    assert (ran.code, "did you mean head1.weight" in ran.err) == (2, True)


def test_no_tensor_is_read(five: Run, folder: Path) -> None:
    for each in Registry(folder).store.objects():
        if not each.is_manifest:
            each.path.unlink()
    assert five("blame", "head1.weight").code == 0
    assert five("log", "--", "head1").code == 0
