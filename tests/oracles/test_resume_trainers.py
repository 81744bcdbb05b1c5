"""Training goes on in transformers' Trainer and in accelerate from the folders that they save.

As in `test_resume`, with the frameworks themselves: train some steps, let the framework save its
folder, refactor the class, rename the folder, resume in the framework: the weights at the end equal
bit by bit those of a run that was never interrupted. They come with the extra ``interop``.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ckpt.definitions.importing import declare_torchvision_ops
from tests.cli.support import Run

pytestmark = pytest.mark.long
NETS = '''
from torch import nn
from torch.nn.functional import cross_entropy

class Net(nn.Module):
    def forward(self, input_ids=None, labels=None):
        hidden = self.norm(self.words(input_ids))
        scores = self.head(self.block(hidden).relu() + self.gate(hidden))
        return {"loss": cross_entropy(scores.flatten(0, 1), labels.flatten()), "logits": scores}

class Old(Net):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.norm = nn.LayerNorm(8)
        self.block = nn.Linear(8, 8)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 16)
    words = property(lambda self: self.embed)

class New(Net):
    """The same network: renamed, and its parameters in another order."""
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 16)
        self.gate = nn.Linear(8, 8)
        self.block = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.tokens = nn.Embedding(16, 8)
    words = property(lambda self: self.tokens)
'''
HALF, STEPS = 3, 6
GOAL = ("--rule", "embed=tokens", "--to", "net.py:New", "--from", "net.py:Old")
RENAMED = ("rename", "run", *GOAL, "-o", "new")


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    return ckpt


def classes() -> tuple[type[nn.Module], type[nn.Module]]:
    space: dict[str, Any] = {"__name__": "net"}
    exec(NETS, space)
    return space["Old"], space["New"]


def samples() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(0, 16, (24, 5), generator=generator)
    return [{"input_ids": it[:-1], "labels": it[1:]} for it in words]


def same_weights(new: nn.Module, old: nn.Module) -> bool:
    found = new.state_dict()
    renamed = {key.replace("embed", "tokens"): it for key, it in old.state_dict().items()}
    return {*found} == {*renamed} and all(torch.equal(found[key], renamed[key]) for key in found)


def expect_framework(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    declare_torchvision_ops()  # which transformers imports torchvision for


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_trainer_of_transformers_resumes(safe: bool, nets: Run, folder: Path) -> None:
    expect_framework("transformers")
    from transformers import Trainer, TrainingArguments

    def trained(net: nn.Module, steps: int, resume: Path | None = None) -> nn.Module:
        out = folder / "out"
        arguments = TrainingArguments(
            str(out), max_steps=STEPS, save_steps=HALF, per_device_train_batch_size=4,
            learning_rate=0.01, weight_decay=0.1, report_to=[], use_cpu=True, disable_tqdm=True,
            logging_steps=1000, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(net, arguments, train_dataset=samples())
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        assert trainer.state.global_step == steps
        return net

    torch.manual_seed(0)
    old = trained(classes()[0](), STEPS)
    shutil.move(folder / "out" / f"checkpoint-{HALF}", folder / "run")
    if not safe:
        from safetensors.torch import load_file

        weights = folder / "run" / "model.safetensors"
        torch.save(load_file(weights), folder / "run" / "pytorch_model.bin")
        weights.unlink()
    ran = nets(*RENAMED)
    assert ran.code == 0, ran
    assert "optimizer.pt in the order of the new class" in ran.out
    before = {path.name for path in (folder / "run").iterdir()}
    assert {path.name for path in (folder / "new").iterdir()} == before
    torch.manual_seed(7)
    assert same_weights(trained(classes()[1](), STEPS, folder / "new"), old)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_state_of_accelerate_resumes(safe: bool, nets: Run, folder: Path) -> None:
    expect_framework("accelerate")
    from accelerate import Accelerator

    def run(net: nn.Module, first: int, resume: Path | None, save: Path | None) -> nn.Module:
        accelerator = Accelerator(cpu=True)
        optimizer = torch.optim.AdamW(net.parameters(), 0.01, amsgrad=True)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        whole, its, rate = accelerator.prepare(net, optimizer, scheduler)
        if resume is not None:
            accelerator.load_state(str(resume))
        for step, batch in enumerate(DataLoader(samples(), batch_size=4)):  # type: ignore[arg-type]
            if step < first:
                continue
            if step == HALF and save is not None:
                accelerator.save_state(str(save), safe_serialization=safe)
            its.zero_grad()
            accelerator.backward(whole(**batch)["loss"])
            its.step()
            rate.step()
        return net

    torch.manual_seed(0)
    old = run(classes()[0](), 0, None, folder / "run")
    ran = nets(*RENAMED)
    assert ran.code == 0, ran
    assert "optimizer.bin in the order of the new class" in ran.out
    before = {path.name for path in (folder / "run").iterdir()}
    assert {path.name for path in (folder / "new").iterdir()} == before
    assert same_weights(run(classes()[1](), HALF, folder / "new", None), old)
