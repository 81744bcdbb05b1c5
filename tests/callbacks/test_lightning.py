"""`ckpt.lightning.Register` in real runs of Lightning's Trainer; it is compared with copies."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import ckpt
from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.registry.registry import Registry
from tests.effort import PATIENCE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    declare_torchvision_ops()  # both import torchvision
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from ckpt.lightning import Register

pytestmark = pytest.mark.filterwarnings("ignore")
LOSSES = [3.0, 1.0, 2.0, 0.5]  # of the validation after each epoch


class Net(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, width: int = 3, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)
        self.states: list[dict[str, Tensor]] = []
        self.losses = list(LOSSES)

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss, on_epoch=True, on_step=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        if self.trainer.sanity_checking:
            self.log("val_loss", 0.0)
            return
        self.log("val_loss", self.losses[self.current_epoch])

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.states.append(copy.deepcopy(self.layer.state_dict()))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"])

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4)

    val_dataloader = train_dataloader


def fit(folder: Path, callback: Any, *, net: Any = None, epochs: int = 4, **options: Any) -> Any:
    net = net or Net()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[callback],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        **{"enable_checkpointing": False, **options},
    )  # fmt: skip
    trainer.fit(net, ckpt_path=options.get("ckpt_path"))
    assert trainer.current_epoch == epochs
    return net


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry").mkdir()
    return Registry(tmp_path / "registry")


def loads(registry: Registry, ref: str, expected: dict[str, Tensor], folder: Path) -> None:
    """The version as a file is what torch loads strictly into a new module."""
    path = folder / f"{ref.replace(':', '-')}.pt"
    ckpt.export(ref, path, registry=registry)
    net = Net()
    net.load_state_dict(torch.load(path, weights_only=True))
    assert all(torch.equal(net.layer.state_dict()[key], value) for key, value in expected.items())


def test_improvements_become_versions_and_best_follows(registry: Registry, tmp_path: Path) -> None:
    callback = Register("net", lowest="val_loss", registry=registry)
    net = fit(tmp_path, callback)
    assert callback.versions == ["net:v1", "net:v2", "net:v3"]
    for version, epoch in zip(callback.versions, (0, 1, 3), strict=True):
        found = registry.version(version)
        assert found.metrics == {"val_loss": LOSSES[epoch]}, "no loss of other weights"
        assert found.made_by == f"lightning, epoch {epoch}"
        loads(registry, version, net.states[epoch], tmp_path)
    assert registry.version("net@best").label == "v3"
    (step,) = ckpt.log("net:v3", registry=registry)
    training = step.record["training"]
    assert training["config"] == {"width": 3, "rate": 0.1}
    assert (training["epoch"], training["step"]) == (3, 8)
    assert training["environment"]["torch"] == torch.__version__


def test_without_a_metric_the_last_weights_are_registered(
    registry: Registry, tmp_path: Path
) -> None:
    callback = Register("net", registry=registry.folder)
    net = fit(tmp_path, callback)
    assert callback.versions == ["net:v1"]
    assert registry.version("net:v1").metrics == {"val_loss": 0.5}
    loads(registry, "net:v1", net.states[-1], tmp_path)
    assert not registry.index().model("net").aliases


def test_every_validation_can_be_registered(registry: Registry, tmp_path: Path) -> None:
    callback = Register("net", highest="val_loss", every_evaluation=True, registry=registry)
    fit(tmp_path, callback)
    assert len(callback.versions) == 4
    assert registry.version("net@best").label == "v1"


def test_a_misspelt_metric_is_a_warning_and_the_weights_are_kept(
    registry: Registry, tmp_path: Path
) -> None:
    callback = Register("net", lowest="val_los", registry=registry)
    with pytest.warns(UserWarning, match="no metric val_los was measured, .*: val_loss"):
        fit(tmp_path, callback)
    assert callback.versions == ["net:v1"]


def test_a_registry_that_fails_is_a_warning_and_the_run_goes_on(
    registry: Registry, tmp_path: Path
) -> None:
    (registry.folder / "registry.json").write_text("{")
    callback = Register("net", lowest="val_loss", registry=registry)
    with pytest.warns(UserWarning, match="the weights were not registered: .*registry.json"):
        net = fit(tmp_path, callback)
    assert len(net.states) == 4
    assert callback.versions == []


def test_a_resumed_run_remembers_its_best(registry: Registry, tmp_path: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(tmp_path, filename="at", save_last=False)
    first = Register("net", lowest="val_loss", registry=registry)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[first, saver],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Net())
    assert first.versions == ["net:v1", "net:v2"]
    again = Register("net", lowest="val_loss", registry=registry)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, callbacks=[again],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Net(), ckpt_path=saver.best_model_path, weights_only=False)
    assert trainer.current_epoch == 3
    assert again.versions == [], "2.0 is worse than 1.0 before"


def test_rehearsals_register_nothing(registry: Registry, tmp_path: Path) -> None:
    callback = Register("net", registry=registry)
    fit(tmp_path, callback, epochs=1, fast_dev_run=True)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False
    )
    trainer.validate(Net())
    assert callback.versions == []
    assert not registry.exists


def test_sharded_weights_are_not_registered_and_reported(registry: Registry) -> None:
    """A run under FSDP needs GPUs: its strategy is real, the rest stands in."""
    callback = Register("net", registry=registry)
    strategy = pl.strategies.FSDPStrategy()
    trainer = SimpleNamespace(
        strategy=strategy, state=SimpleNamespace(fn="fit"), sanity_checking=False, world_size=2,
        is_global_zero=True, fast_dev_run=False, global_step=1, current_epoch=0, precision="32",
    )  # fmt: skip
    module = SimpleNamespace(trainer=trainer, hparams={}, device=torch.device("cpu"))
    with pytest.warns(UserWarning, match="rank 0 of a FSDPStrategy has only a part of them"):
        callback.on_train_end(trainer, module)
    assert callback.versions == []


PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from ckpt.definitions.importing import declare_torchvision_ops
declare_torchvision_ops()
import lightning.pytorch as pl
from ckpt.lightning import Register
from tests.callbacks.test_lightning import Net
callback = Register("net", lowest="val_loss", registry=sys.argv[1])
trainer = pl.Trainer(
    max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, callbacks=[callback],
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
)
trainer.fit(Net())
Path(sys.argv[1], f"rank{trainer.global_rank}").write_text(" ".join(callback.versions))
"""


@pytest.mark.long
def test_rank_0_alone_registers(registry: Registry) -> None:
    root = Path(__file__).parents[2]
    script = registry.folder / "two.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(root)!r})\n{PROGRAM}")
    subprocess.run(
        [sys.executable, script, registry.folder], check=True, timeout=PATIENCE, capture_output=True
    )
    written = [(registry.folder / f"rank{rank}").read_text() for rank in (0, 1)]
    assert written == ["net:v1 net:v2", ""]
    assert len(registry.index().model("net").versions) == 2
