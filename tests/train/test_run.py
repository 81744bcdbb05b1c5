"""Whole runs, on the digits: bytes, record, errors, and nothing left behind."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ckpt.definitions import find_definition
from ckpt.definitions.importing import DefinitionError
from ckpt.errors import FitError, UsageError
from ckpt.train.data.windows import ORDER_RULE
from ckpt.train.random_numbers import seed_all
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.watch.events import Ended, Epoch, Event, Note, Started, StepDone, Trained

DIGITS = {"dataset": "digits", "epochs": 1, "precision": "fp32", "device": "cpu"}


def run(model, out, **settings):
    """The result of a run, and its events."""
    events: list[Event] = []
    recipe = Recipe(**{**DIGITS, "model": model, **settings})
    return train(recipe, out, callback=events.append), events


def test_a_run_writes_the_file_that_it_tests_and_sends_events(tmp_path, linear, capsys):
    out = tmp_path / "w.pt"
    trained, events = run(linear, out, epochs=2)
    others = [event for event in events if type(event) is not StepDone]
    assert [type(event) for event in others] == [Started, Epoch, Epoch, Trained, Ended]
    assert others[1:3] == list(trained.curves)
    assert others[3] is trained
    assert events[1:3] == [StepDone(1, 64), StepDone(1, 128)]
    assert events[-4:-2] == [StepDone(2, 1437), trained.curves[-1]]
    assert (trained.path, trained.test_count) == (out, 360)
    assert trained.test_accuracy == trained.test_correct / 360 > 0.8
    assert [epoch.lr for epoch in trained.curves] == pytest.approx([1.0, 0.7])
    assert all(type(epoch.loss) is float for epoch in trained.curves)
    assert trained.definition_source == Path(linear.rpartition(":")[0]).read_text()
    assert capsys.readouterr() == ("", "")


def test_the_record_is_json_and_says_what_to_repeat(tmp_path, linear):
    record = run(linear, tmp_path / "w.pt", accumulate=4, num_workers=1)[0].record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["recipe"]["precision"] == "fp32"
    assert "data_dir" not in record["recipe"]
    assert record["effective_batch"] == 256
    assert record["dataset"]["digest"].startswith("sha256:")
    assert record["environment"]["torch"] == torch.__version__
    Recipe(**record["recipe"])
    assert record["recipe"]["seed"] == 3
    assert record["sample_order"] == ORDER_RULE


def test_the_record_has_the_wall_clock_in_three_parts(tmp_path, linear):
    trained = run(linear, tmp_path / "w.pt", epochs=2)[0]
    clock = trained.record["wall_clock"]
    assert list(clock) == ["process", "warm_up", "loop"]
    assert clock["loop"] >= sum(epoch.seconds for epoch in trained.curves) - 0.001
    assert clock["warm_up"] + clock["loop"] <= trained.seconds + 0.001
    assert sys.platform != "linux" or clock["process"] > 0


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", None), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_the_record_has_the_dtype_of_autocast(tmp_path, linear, precision, dtype):
    assert run(linear, tmp_path / "w.pt", precision=precision)[0].record["autocast"] == dtype


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_the_suffix_says_the_format(tmp_path, linear, suffix):
    out = run(linear, tmp_path / f"w{suffix}")[0].path
    if suffix == ".safetensors":
        state = safetensors.torch.load_file(out)
    else:
        state = torch.load(out, weights_only=True)
    find_definition(linear).build().load_state_dict(state, strict=True)


@pytest.mark.long
def test_tensors_are_row_major_in_the_file_whatever_the_trainer_used(tmp_path):
    run("ckpt.models.mnist_cnn:Net", tmp_path / "w.pt")
    state = torch.load(tmp_path / "w.pt", weights_only=True)
    for tensor in state.values():
        assert tensor.stride() == torch.empty(tensor.shape).stride()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.long
def test_one_recipe_gives_one_file_in_any_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ckpt.train.recipes.recipe import Recipe;"
        "from ckpt.train.run import train;"
        f"train(Recipe(**{DIGITS!r}), Path(sys.argv[1]))"
    )
    out = tmp_path / "other.pt"
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    torch.rand(3)
    run("ckpt.models.mnist_cnn:Net", tmp_path / "one.pt")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.pt")}
    assert len(digests) == 1


@pytest.mark.long
def test_workers_give_the_same_file(tmp_path, linear):
    settings = {"epochs": 2, "accumulate": 3}
    run(linear, tmp_path / "resident.pt", **settings)
    run(linear, tmp_path / "workers.pt", **settings, num_workers=2)
    assert (tmp_path / "resident.pt").read_bytes() == (tmp_path / "workers.pt").read_bytes()


def test_the_seed_changes_the_file(tmp_path, linear):
    run(linear, tmp_path / "1.pt")
    run(linear, tmp_path / "2.pt", seed=2)
    assert (tmp_path / "1.pt").read_bytes() != (tmp_path / "2.pt").read_bytes()


def test_torchs_generator_is_as_before(tmp_path, linear):
    before = torch.get_rng_state()
    run(linear, tmp_path / "w.pt")
    assert torch.equal(before, torch.get_rng_state())


def test_an_interrupted_run_leaves_no_file(tmp_path, linear):
    events = []

    def interrupt(event):
        events.append(event)
        if type(event) is StepDone:
            raise KeyboardInterrupt

    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(Recipe(**DIGITS, model=linear), folder / "w.pt", callback=interrupt)
    assert list(folder.iterdir()) == []
    assert [type(event) for event in events] == [Started, StepDone, Ended]


def test_a_taken_name_is_refused_before_the_training(tmp_path, linear):
    out = tmp_path / "w.pt"
    out.write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        run(linear, out)
    assert out.read_text() == "precious"
    train(Recipe(**DIGITS, model=linear), out, replace=True)
    assert torch.load(out, weights_only=True)


@pytest.mark.parametrize(
    ("name", "message"), [("w.txt", "unknown suffix"), ("no/w.pt", "no such folder")]
)
def test_a_destination_that_cannot_be_is_refused(tmp_path, linear, name, message):
    with pytest.raises(UsageError, match=message):
        run(linear, tmp_path / name)


def test_a_device_that_is_not_there_is_refused(tmp_path, linear):
    with pytest.raises(UsageError, match="device is cuda:63, but torch sees"):
        run(linear, tmp_path / "w.pt", device="cuda:63")


MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.layer = {layer}
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        scores = self.layer(x.flatten(1))
        {end}
"""
LINEAR = "nn.Linear(784, classes)"
UNFIT = {
    "logits for nll": (LINEAR, "return scores", "not return log-prob", {"loss": "nll"}),
    "classes": (LINEAR, "return scores[:, :9]", r"returns \(8, 9\), expected \(8, 10\)", {}),
    "input": ("nn.Linear(3, 10)", "", r"on images \(8, 1, 28, 28\): raises RuntimeError: mat1", {}),
    "no scores": (LINEAR, "return 7", "the model returns int, expected a tensor of scores", {}),
    "nothing to train": ("nn.Flatten()", "return scores[:, :10]", "no parameters to train", {}),
    "an error": (LINEAR, "return {}['x']", "raises KeyError: 'x'", {}),
    "an error in training": (
        LINEAR, "if self.training: raise ValueError('mine')\n        return scores",
        "raises ValueError: mine", {},
    ),
    "a late error": (
        LINEAR, "if self.calls > 9: raise IndexError('late')\n        return scores",
        "raises IndexError: late", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "end", "message", "more"), UNFIT.values(), ids=UNFIT)
def test_error_of_a_model_is_its_own(tmp_path, layer, end, message, more):
    """One line, with the line of the model's code as the hint where it raised."""
    (tmp_path / "net.py").write_text(MODEL.format(layer=layer, end=end))
    with pytest.raises((FitError, DefinitionError), match=message) as caught:
        run(f"{tmp_path}/net.py:Net", tmp_path / "w.pt", **more)
    assert "\n" not in str(caught.value)
    assert "raises" not in message or f"{tmp_path}/net.py:" in str(caught.value.hint)
    assert not (tmp_path / "w.pt").exists()


FORMS = {
    "logits": ("return scores", {}),
    "dict": ("return {'logits': scores, 'more': 1}", {}),
    "tuple": ("return scores, x", {}),
    "logits in training only": (
        "return scores if self.training else scores.log_softmax(1)", {},
    ),
    "sigmoids": ("return scores", {"loss": "bce"}),
    "squares": ("return scores", {"loss": "mse", "lr": 0.001}),
}  # fmt: skip


@pytest.mark.parametrize(("end", "more"), FORMS.values(), ids=FORMS)
def test_scores_are_found_and_learned_from(tmp_path, end, more):
    (tmp_path / "net.py").write_text(MODEL.format(layer=LINEAR, end=end))
    settings = {"optimizer": "sgd", "lr": 0.05, **more}
    trained, _ = run(f"{tmp_path}/net.py:Net(classes=10)", tmp_path / "w.pt", **settings)
    assert trained.test_accuracy > 0.75
    assert trained.record["recipe"]["loss"] == more.get("loss", "cross-entropy")


def test_logits_train_as_their_log_probabilities(tmp_path, linear):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    first, second = (
        run(ref, tmp_path / f"{name}.pt")[0]
        for name, ref in (("a", linear), ("b", f"{tmp_path}/net.py:net"))
    )
    assert [first.record["recipe"]["loss"], second.record["recipe"]["loss"]] == [
        "nll",
        "cross-entropy",
    ]
    assert first.curves[0].loss == pytest.approx(second.curves[0].loss, rel=1e-5)


def test_lazy_module_and_three_channels_train(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(\n"
        "    nn.Conv2d(3, 2, 3, stride=2), nn.Flatten(), nn.LazyLinear(10))\n"
    )
    trained, _ = run(f"{tmp_path}/net.py:net", tmp_path / "w.pt", optimizer="adam", lr=0.01)
    assert trained.test_accuracy > 0.7
    assert torch.load(tmp_path / "w.pt")["0.weight"].shape == (2, 3, 3, 3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_learn_too(tmp_path, linear, precision):
    trained, events = run(linear, tmp_path / "w.pt", precision=precision, epochs=2)
    assert trained.test_accuracy > 0.8
    (started,) = (event for event in events if type(event) is Started)
    assert started.precision == precision


def test_fp16_on_a_cpu_is_warned_of(tmp_path, linear):
    assert type(run(linear, tmp_path / "w.pt", precision="fp16")[1][0]) is Note
    assert type(run(linear, tmp_path / "b.pt", precision="bf16")[1][0]) is Started


@pytest.mark.parametrize("allowed", [False, True])
def test_tensor_float_32_stays_as_it_was(tmp_path, linear, allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    seen = []

    def look(event):
        seen.append(torch.backends.cudnn.allow_tf32)

    train(Recipe(**DIGITS, model=linear), tmp_path / "w.pt", callback=look)
    assert {*seen} == {allowed}


def test_random_numbers_of_the_caller_go_on_as_before(tmp_path, linear):
    def drawn():
        return random.random(), np.random.rand(), float(torch.rand(()))

    seed_all(1)
    expected = drawn()
    seed_all(1)
    run(linear, tmp_path / "w.pt")
    assert drawn() == expected


def test_an_old_torch_is_refused_before_anything_else(tmp_path, linear, monkeypatch):
    monkeypatch.delattr(torch.nn.utils, "get_total_norm")
    with pytest.raises(UsageError, match=r"^training needs torch 2\.6 or newer, this is 2\."):
        run(linear, tmp_path / "w.pt")
