"""Every option of `ckpt train`, beside `--resume` and `--doctor`: it counts, or is refused."""

import click
import pytest

from ckpt.cli.train import command
from tests.cli.support import Run

COMMON = {"as_json", "quiet", "registry_folder", "out", "force"}
RESUMED = {  # what a resumed run takes; its recipe is in the state file
    *COMMON, "resume", "registered", "name", "message", "save_every", "keep_state", "metrics",
    "tensorboard", "data_dir", "device", "epochs",
}  # fmt: skip
EXAMINED = {  # what the measurements depend on
    *COMMON, "doctor", "recipe_ref", "arguments", "loss", "label_smoothing", "dataset", "data_dir",
    "image_size", "augment", "batch_size", "optimizer", "momentum", "weight_decay", "decay_on",
    "clip", "batch_norm", "gradient_checkpointing", "seed", "device", "pin_memory",
    "persistent_workers",
}  # fmt: skip
OPTIONS = {str(each.name): each for each in command.params}


def words(option: click.Parameter) -> list[str]:
    """The option, with a value that it can have."""
    name = max(option.opts, key=len)
    if isinstance(option, click.Option) and option.is_flag:
        return [name]
    if isinstance(option.type, click.Choice):
        return [name, option.type.choices[0]]
    return [name, "." if isinstance(option.type, click.Path) else "1"]


def test_lists_name_options() -> None:
    assert OPTIONS.keys() >= RESUMED | EXAMINED


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - RESUMED - {"doctor", "arguments"}))
def test_option_is_refused_beside_resume(ckpt: Run, name: str) -> None:
    option, *value = words(OPTIONS[name])
    ran = ckpt("train", "--resume", "x.pt", option, *value)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {option} cannot be used with --resume, which takes the ")


@pytest.mark.parametrize("name", sorted(RESUMED - {"resume"}))
def test_option_is_taken_beside_resume(ckpt: Run, name: str) -> None:
    ran = ckpt("train", "--resume", "no.pt", *words(OPTIONS[name]))
    assert (ran.code, ran.err.splitlines()) == (2, ["error: no.pt: no such file"])


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - EXAMINED))
def test_option_is_refused_beside_doctor(ckpt: Run, name: str) -> None:
    option, *value = words(OPTIONS[name])
    ran = ckpt("train", "--doctor", "no.py:Net", option, *value)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert ran.err.startswith(f"error: {option} cannot be used with --doctor, which t")
