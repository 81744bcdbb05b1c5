"""`ckpt.transformers.Register` in real runs of transformers' Trainer."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ckpt
from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.registry.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")
SCORES = [0.2, 0.6, 0.4]  # of the evaluation after each epoch


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    """Import it for these tests alone: it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        declare_torchvision_ops()  # both import torchvision
        pytest.importorskip("transformers", reason="transformers is not installed")
        pytest.importorskip("accelerate", reason="transformers is not installed with accelerate")


def register(name: str, **options: Any) -> Any:
    from ckpt.transformers import Register

    return Register(name, **options)


def new_model() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def fit(folder: Path, callback: Any, model: Any = None, **options: Any) -> Any:
    import transformers

    class Copies(transformers.TrainerCallback):  # type: ignore[misc] # it has no types
        """The weights at each evaluation."""

        def __init__(self) -> None:
            self.states: list[dict[str, Tensor]] = []

        def on_evaluate(self, *_: Any, model: Any, **kwargs: Any) -> None:
            self.states.append({key: each.clone() for key, each in model.state_dict().items()})

    ids = torch.randint(0, 11, (8, 5), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": int(row[0] > 5)} for row in ids]
    scores = iter(SCORES)
    copies = Copies()
    args = transformers.TrainingArguments(
        folder / "out", num_train_epochs=3, learning_rate=0.01, per_device_train_batch_size=4,
        report_to="none", use_cpu=True, disable_tqdm=True,
        **{"eval_strategy": "epoch", "save_strategy": "no", **options},
    )  # fmt: skip
    trainer = transformers.Trainer(
        model or new_model(), args, train_dataset=data, eval_dataset=data,
        callbacks=[copies, callback],
        compute_metrics=lambda _: {"accuracy": next(scores)},
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 6
    return copies.states


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry").mkdir()
    return Registry(tmp_path / "registry")


def loads(registry: Registry, ref: str, expected: dict[str, Tensor], folder: Path) -> None:
    """The exported version is a folder that `from_pretrained` takes."""
    import transformers

    ckpt.export(ref, folder, registry=registry)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_improvements_become_versions_and_best_follows(registry: Registry, tmp_path: Path) -> None:
    callback = register("bert", highest="eval_accuracy", registry=registry)
    states = fit(tmp_path, callback)
    assert callback.versions == ["bert:v1", "bert:v2"]
    for version, epoch in zip(callback.versions, (0, 1), strict=True):
        metrics = registry.version(version).metrics
        assert set(metrics) == {"eval_loss", "eval_accuracy"}
        assert metrics["eval_accuracy"] == SCORES[epoch]
    assert registry.version("bert@best").label == "v2"
    loads(registry, "bert:v2", states[1], tmp_path / "exported")
    (step,) = ckpt.log("bert:v2", registry=registry)
    training = step.record["training"]
    assert (training["epoch"], training["step"]) == (2.0, 4)
    assert training["config"]["learning_rate"] == 0.01
    assert str(tmp_path) not in str(training), "no folder of this machine"


def test_without_a_metric_the_last_weights_are_registered(
    registry: Registry, tmp_path: Path
) -> None:
    callback = register("bert", registry=registry)
    states = fit(tmp_path, callback)
    assert callback.versions == ["bert:v1"]
    assert registry.version("bert:v1").metrics["eval_accuracy"] == SCORES[-1]
    loads(registry, "bert:v1", states[-1], tmp_path / "exported")


def test_the_best_weights_at_the_end_have_their_own_metrics(
    registry: Registry, tmp_path: Path
) -> None:
    callback = register("bert", registry=registry)
    states = fit(
        tmp_path, callback, save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )  # fmt: skip
    assert registry.version("bert:v1").metrics["eval_accuracy"] == 0.6
    (step,) = ckpt.log("bert:v1", registry=registry)
    assert (step.record["training"]["epoch"], step.record["training"]["step"]) == (2.0, 4)
    loads(registry, "bert:v1", states[1], tmp_path / "exported")


def test_a_registry_that_fails_is_a_warning_and_the_run_goes_on(
    registry: Registry, tmp_path: Path
) -> None:
    (registry.folder / "registry.json").write_text("{")
    callback = register("bert", highest="eval_accuracy", registry=registry)
    with pytest.warns(UserWarning, match="the weights were not registered: .*registry.json"):
        states = fit(tmp_path, callback)
    assert len(states) == 3
    assert callback.versions == []


def test_a_resumed_run_remembers_its_best(registry: Registry) -> None:
    """The trainer's own log says what was measured before."""
    import transformers

    callback = register("bert", highest="eval_accuracy", registry=registry)
    state = transformers.TrainerState(
        log_history=[{"eval_accuracy": 0.7, "step": 4, "epoch": 2.0}], global_step=6
    )
    args = transformers.TrainingArguments("unused", report_to="none", use_cpu=True)
    callback.on_train_begin(args, state, None)
    callback.on_evaluate(args, state, None, metrics={"eval_accuracy": 0.6}, model=new_model())
    assert callback.versions == []
    callback.on_evaluate(args, state, None, metrics={"eval_accuracy": 0.8}, model=new_model())
    assert callback.versions == ["bert:v1"]


class Plain(torch.nn.Module):
    """A model of no library, as the Trainer also takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(input_ids.float())
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_a_plain_module_is_registered_as_a_state_dict(registry: Registry, tmp_path: Path) -> None:
    callback = register("plain", registry=registry)
    states = fit(tmp_path, callback, Plain())
    found = ckpt.load("plain:v1", registry=registry)
    assert all(torch.equal(found[key], value) for key, value in states[-1].items())
