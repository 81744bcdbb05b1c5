"""Whole runs, on the digits: bytes, record, errors, and nothing left behind."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ckpt.definitions import find_definition
from ckpt.errors import FitError, UsageError
from ckpt.train.data.windows import ORDER_RULE
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.watch.events import Unwatched

DIGITS = {"dataset": "digits", "epochs": 1, "precision": "fp32", "device": "cpu"}


class Log(Unwatched):
    """Remembers what it was told, in order."""

    def __init__(self):
        self.calls, self.facts, self.images, self.told = [], None, [], None

    def note(self, text):
        self.calls.append("note")

    def started(self, facts):
        self.calls.append("started")
        self.facts = facts

    def step(self, epoch, images):
        self.images.append((epoch, images))

    def epoch(self, result):
        self.calls.append("epoch")

    def finished(self, trained):
        self.calls.append("finished")
        self.told = trained


def run(model, out, **settings):
    log = Log()
    return train(Recipe(**{**DIGITS, "model": model, **settings}), out, watch=log), log


def test_a_run_writes_what_it_tested_and_tells_it(tmp_path, linear, capsys):
    out = tmp_path / "w.pt"
    trained, log = run(linear, out, epochs=2)
    assert log.calls == ["started", "epoch", "epoch", "finished"]
    assert log.images[:2] == [(1, 64), (1, 128)]
    assert log.images[-1] == (2, 1437)
    assert log.told is trained
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


def test_tensors_are_row_major_in_the_file_whatever_the_trainer_used(tmp_path):
    run("ckpt.models.mnist_cnn:Net", tmp_path / "w.pt")
    state = torch.load(tmp_path / "w.pt", weights_only=True)
    for tensor in state.values():
        assert tensor.stride() == torch.empty(tensor.shape).stride()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_one_recipe_gives_one_file_in_any_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ckpt.train.recipes.recipe import Recipe;"
        "from ckpt.train.run import train; from ckpt.train.watch.events import Unwatched;"
        f"train(Recipe(**{DIGITS!r}), Path(sys.argv[1]), watch=Unwatched())"
    )
    out = tmp_path / "other.pt"
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    torch.rand(3)
    run("ckpt.models.mnist_cnn:Net", tmp_path / "one.pt")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.pt")}
    assert len(digests) == 1


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
    class Impatient(Unwatched):
        def step(self, epoch, images):
            raise KeyboardInterrupt

    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(Recipe(**DIGITS, model=linear), folder / "w.pt", watch=Impatient())
    assert list(folder.iterdir()) == []


def test_a_taken_name_is_refused_before_the_training(tmp_path, linear):
    out = tmp_path / "w.pt"
    out.write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        run(linear, out)
    assert out.read_text() == "precious"
    train(Recipe(**DIGITS, model=linear), out, watch=Unwatched(), replace=True)
    assert torch.load(out, weights_only=True)


@pytest.mark.parametrize(
    ("name", "message"), [("w.txt", "no known suffix"), ("no/w.pt", "no such folder")]
)
def test_a_destination_that_cannot_be_is_refused(tmp_path, linear, name, message):
    with pytest.raises(UsageError, match=message):
        run(linear, tmp_path / name)


def test_a_device_that_is_not_there_is_refused(tmp_path, linear):
    with pytest.raises(UsageError, match="device is cuda:63, but torch sees"):
        run(linear, tmp_path / "w.pt", device="cuda:63")


UNFIT = {
    "logits": ("nn.Sequential(nn.Flatten(), nn.Linear(784, 10))", "no log-probabilities"),
    "classes": ("nn.Sequential(nn.Flatten(), nn.Linear(784, 9))", r"gives \(8, 9\)"),
    "input": ("nn.Linear(3, 10)", r"does not take images \(8, 1, 28, 28\)"),
}


@pytest.mark.parametrize(("module", "message"), UNFIT.values(), ids=UNFIT)
def test_a_model_for_something_else_is_refused(tmp_path, module, message):
    (tmp_path / "net.py").write_text(f"from torch import nn\ndef net(): return {module}\n")
    with pytest.raises(FitError, match=message) as caught:
        run(f"{tmp_path}/net.py:net", tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_learn_too(tmp_path, linear, precision):
    trained, log = run(linear, tmp_path / "w.pt", precision=precision, epochs=2)
    assert trained.test_accuracy > 0.8
    assert log.facts.precision == precision


def test_fp16_on_a_cpu_is_warned_of(tmp_path, linear):
    assert run(linear, tmp_path / "w.pt", precision="fp16")[1].calls[0] == "note"
    assert run(linear, tmp_path / "b.pt", precision="bf16")[1].calls[0] == "started"
