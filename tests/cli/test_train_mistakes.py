"""What people get wrong with `ckpt train`: one line, exit 2 or 3, and never a fault of ckpt."""

from pathlib import Path

import pytest

from tests.cli.support import Run

QUICK = ("--dataset", "digits", "--epochs", "1", "--precision", "fp32", "--batch-size", "256")
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.fc = nn.Linear(784, classes)
    def forward(self, x):
        return self.fc(x.flatten(1)).log_softmax(1)

class NotModule:
    pass

class NeedsWidth(Net):
    def __init__(self, width):
        super().__init__()

class NotBuilt(Net):
    def __init__(self):
        raise RuntimeError("no weights here")

class NoParameters(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10].log_softmax(1)

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class Meta(Net):
    def __init__(self):
        super().__init__()
        self.to("meta")

class Double(Net):
    def __init__(self):
        super().__init__()
        self.double()

class NoCopy(Net):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")

class Returns(Net):
    def forward(self, x):
        return self.wrong(super().forward(x))

class Nothing(Returns):
    def wrong(self, scores): return None

class Numbers(Returns):
    def wrong(self, scores): return 1, 2

class Classes(Returns):
    def wrong(self, scores): return scores[:, :9]

class OneNumber(Returns):
    def wrong(self, scores): return scores.sum()

class OneColumn(Returns):
    def wrong(self, scores): return scores[:, 0]

class Whole(Returns):
    def wrong(self, scores): return scores.long()

class Complex(Returns):
    def wrong(self, scores): return scores.to(torch.complex64)

class Sparse(Returns):
    def wrong(self, scores): return scores.to_sparse()

class SparseGradient(Net):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(2, 10, mode="sum", sparse=True)
    def forward(self, x):
        return self.bag((x.flatten(1) > 0).long()).log_softmax(1)

class Detached(Returns):
    def wrong(self, scores): return scores.detach()

class Nan(Returns):
    def wrong(self, scores): return scores * float("nan")

class InPlace(Returns):
    def wrong(self, scores):
        powers = scores.exp()
        again = powers.log()
        powers.add_(1)
        return again

class Raises(Returns):
    def wrong(self, scores): raise ValueError("my own fault")

class Exits(Returns):
    def wrong(self, scores): raise SystemExit(0)

class RaisesLater(Returns):
    def wrong(self, scores):
        if len(scores) > 8:
            raise IndexError("with many")
        return scores

class RaisesInTest(Returns):
    def wrong(self, scores):
        if len(scores) > 8 and not self.training:
            raise KeyError("in the test")
        return scores

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, gradient): raise ArithmeticError("in backward")

class RaisesInBackward(Returns):
    def wrong(self, scores): return Backward.apply(scores)

class Logits(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(10)
    def forward(self, x):
        return self.norm(self.fc(x.flatten(1)))
"""
FILES = {
    "net.py": NETS,
    "imports.py": "import no_such_thing\n",
    "syntax.py": "def (\n",
    "typed.toml": "lr = 'x'\n",
    "unknown.toml": "lerning = 1\n",
    "broken.toml": "[[[",
    "weights.pt": "hi\n",
    "empty/note.txt": "",
    "one/cat/x.png": "",
}
OWN = [  # the class, and what is said about it
    ("Missing", 2, "net.py: has no class Missing"),
    ("NotModule", 3, "net.py:NotModule: returns NotModule, expected torch.nn.Module"),
    ("NeedsWidth", 3, "net.py:NeedsWidth: raises TypeError: NeedsWidth.__init__() missing 1"),
    ("NotBuilt", 3, "net.py:NotBuilt: raises RuntimeError: no weights here"),
    ("NoParameters", 3, "net.py:NoParameters: has no parameters to train"),
    ("Frozen", 3, "net.py:Frozen: has no parameters to train"),
    ("Meta", 3, "net.py:Meta: is built on the meta device, expected parameters with values"),
    ("Double", 3, "net.py:Double: on images (8, 1, 28, 28): raises RuntimeError: mat1 and"),
    ("NoCopy", 3, "net.py:NoCopy: on images (8, 1, 28, 28): raises TypeError: cannot be copied"),
    ("Nothing", 3, "the model returns NoneType, expected a tensor of scores"),
    ("Numbers", 3, "the model returns tuple, expected a tensor of scores"),
    ("Classes", 3, "net.py:Classes: returns (8, 9), expected (8, 10)"),
    ("OneNumber", 3, "net.py:OneNumber: returns (), expected (8, 10)"),
    ("OneColumn", 3, "net.py:OneColumn: returns (8,), expected (8, 10)"),
    ("Whole", 3, "the model's scores are int64, expected dense and floating-point"),
    ("Complex", 3, "the model's scores are complex64, expected dense and floating-point"),
    ("Sparse", 3, "the model's scores are sparse_coo, expected dense and floating-point"),
    ("SparseGradient", 3, "net.py:SparseGradient: the gradient of bag.weight is sparse, expected"),
    ("Detached", 3, "net.py:Detached: raises RuntimeError: element 0 of tensors does not require"),
    ("Nan", 3, "the loss is nan in epoch 1, after 0 images"),
    ("InPlace", 3, "net.py:InPlace: raises RuntimeError: one of the variables needed"),
    ("Raises", 3, "net.py:Raises: on images (8, 1, 28, 28): raises ValueError: my own fault"),
    ("Exits", 3, "net.py:Exits: on images (8, 1, 28, 28): raises SystemExit: 0"),
    ("RaisesLater", 3, "net.py:RaisesLater: raises IndexError: with many"),
    ("RaisesInTest", 3, "net.py:RaisesInTest: raises KeyError: 'in the test'"),
    ("RaisesInBackward", 3, "net.py:RaisesInBackward: raises ArithmeticError: in backward"),
]
TYPED = [
    ("--model net.py", 2, "net.py: Python code, and no class is named"),
    ("--model no.py:Net", 2, "no.py: no such file"),
    ("--model no_module:Net", 2, "no_module:Net: no module no_module"),
    ("--model imports.py:Net", 3, "imports.py:Net: raises ModuleNotFoundError"),
    ("--model syntax.py:Net", 3, "syntax.py:Net: raises SyntaxError"),
    ("--model torch.nn:Linear", 3, "torch.nn:Linear: raises TypeError"),
    ("--model net.py:Net --arg width=3", 3, "net.py:Net(width=3): raises TypeError"),
    ("--model net.py:Net --arg width", 2, "Invalid value for '--arg': 'width' is not NAME=VALUE"),
    ("--model net.py:Net --arg classes=9", 3, "net.py:Net(classes=9): returns (8, 9), expected"),
    ("--model net.py:Net --arg classes=x", 3, "net.py:Net(classes='x'): raises TypeError"),
    ("--model net.py:Logits --loss nll", 3, "net.py:Logits: does not return log-probabilities"),
    ("--model net.py:Logits --batch-size 1", 3, "net.py:Logits: raises ValueError: Expected more"),
    ("--model net.py:Net --lr 1e38 --optimizer sgd", 3, "the loss is "),
    ("--model net.py:Net --lr 1e38 --precision auto", 3, "the loss is "),
    ("--recipe typed.toml", 2, "typed.toml: lr is 'x', expected a value like 1.0"),
    ("--recipe unknown.toml", 2, "unknown.toml: a recipe has no setting 'lerning'"),
    ("--recipe broken.toml", 2, "broken.toml: not a valid TOML file"),
    ("--recipe fst", 2, "fst: no such recipe"),
    ("--recipe empty", 2, "empty: no such recipe"),
    ("--dataset mnits", 2, "dataset is mnits, expected one of"),
    ("--dataset empty", 3, "empty: contains no folders, expected one for each class"),
    ("--dataset one", 3, "one/cat: 1 image, expected 2 or more"),
    ("--dataset no.npz", 3, "no.npz: no such file or folder"),
    ("--image-size 8", 2, "image-size is 8, expected 0 with digits"),
    ("--device mps", 2, "device is mps, which has no float64"),
    ("--device cuda:63", 2, "device is cuda:63, but torch sees"),
    ("--device tpu", 2, "device is tpu, expected auto, cpu, cuda or cuda:N"),
    ("--lr nan", 2, "lr is nan, expected a number above 0"),
    ("--lr -1", 2, "lr is -1.0, expected a number above 0"),
    ("--epochs 0", 2, "epochs is 0, expected at least 1"),
    ("--epochs many", 2, "Invalid value for '--epochs': 'many' is not a valid integer"),
    ("--batch-size 0", 2, "batch-size is 0, expected at least 1"),
    ("--clip -1", 2, "clip is -1.0, expected 0 or more"),
    ("--ema 1", 2, "ema is 1.0, expected from 0 to below 1"),
    ("--holdout 1", 2, "holdout is 1.0, expected from 0 to below 1"),
    ("--holdout 0.00001", 2, "holdout is 1e-05, which is 0 of 1,437 images"),
    ("--patience 2", 2, "holdout is 0.0, expected above 0 with --patience or --keep both"),
    ("--seed -1", 2, "seed is -1, expected from 0 to 2^63 - 1"),
    ("--num-workers 2 --loader resident", 2, "num-workers is 2, expected 0"),
    ("--loss bse", 2, "Invalid value for '--loss': 'bse' is not one of"),
    ("--schedule linear", 2, "Invalid value for '--schedule': 'linear' is not one of"),
    ("--save-every -1", 2, "Invalid value for '--save-every': -1.0 is not in the range"),
    ("--init weights.pt", 3, "weights.pt: neither a torch file nor safetensors"),
    ("--init nothing:v1", 2, "nothing:v1: no registry, and no such module"),
    ("--init no.pt", 2, "no.pt: no such file"),
    ("-o out.txt", 2, "out.txt: unknown suffix, expected one of"),
    ("-o no/out.pt", 2, "no: no such folder"),
    ("-o weights.pt", 2, "weights.pt: already exists"),
    ("--name x", 2, "--name requires --register"),
    ("--register --name a/b", 2, "'a/b' is not a valid name"),
    ("--register --holdout 0.1 --keep both", 2, "--keep both writes two files but registers one"),
    ("--metrics m.txt", 2, "m.txt: metrics are written to a .jsonl file"),
]
RESUMED = [
    ("--resume no.pt", 2, "no.pt: no such file"),
    ("--resume weights.pt", 3, "weights.pt: not the state of a training run"),
    ("--resume net.py", 3, "net.py: not the state of a training run"),
    ("--resume empty", 2, "empty: no such file"),
]


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def expect_one_line(ckpt: Run, words: tuple[str, ...], code: int, message: str) -> None:
    ran = ckpt("train", *words)
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert (ran.code, ran.out, len(errors)) == (code, "", 1), ran.err
    assert errors[0].removeprefix("error: ").startswith(message), ran.err
    assert "internal error" not in ran.err
    assert "Traceback" not in ran.err
    assert not Path("net.pt").exists() or "RaisesInTest" in message


@pytest.mark.parametrize(("name", "code", "message"), OWN, ids=[case[0] for case in OWN])
def test_own_class_is_blamed_by_name(ckpt: Run, name: str, code: int, message: str) -> None:
    expect_one_line(ckpt, (*QUICK, "--model", f"net.py:{name}"), code, message)


@pytest.mark.parametrize(("words", "code", "message"), TYPED, ids=[case[0] for case in TYPED])
def test_option_is_refused_by_name(ckpt: Run, words: str, code: int, message: str) -> None:
    expect_one_line(ckpt, (*QUICK, *words.split()), code, message)


@pytest.mark.parametrize(("words", "code", "message"), RESUMED, ids=[case[0] for case in RESUMED])
def test_state_is_refused_by_name(ckpt: Run, words: str, code: int, message: str) -> None:
    expect_one_line(ckpt, tuple(words.split()), code, message)


@pytest.mark.parametrize(
    ("typed", "word", "hint"),
    [
        ("net.py:Net", "net.py:Net", "ckpt train --model net.py:Net"),
        ("net.py:Net --epochs 3", "net.py:Net", "ckpt train --model net.py:Net --epochs 3"),
        ("--epochs 3 torchvision.models:resnet18", "torchvision.models:resnet18",
         "ckpt train --epochs 3 --model torchvision.models:resnet18"),
        ("net.py", "net.py", "ckpt train --model net.py"),
        ("digits", "digits", "ckpt train --dataset digits"),
        ("./photos", "./photos", "ckpt train --dataset ./photos"),
        ("net.py:Net --model net.py:Other", "net.py:Net", "ckpt train --help"),
        ("v1", "v1", "ckpt train --help"),
    ],
)  # fmt: skip
def test_a_value_without_its_option(ckpt: Run, typed: str, word: str, hint: str) -> None:
    ran = ckpt("train", *typed.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: Got unexpected extra argument ({word})\nhint:  {hint}\n"


def test_a_file_without_its_class_is_one_message(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(NETS)
    ran = ckpt("train", "--model", "net.py")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: net.py: Python code, and no class is named\n"
        "hint:  net.py:Net  net.py:NeedsWidth  net.py:NotBuilt  net.py:NoParameters  "
        "net.py:Frozen\n"
    )
    assert ckpt("train", "--doctor", "net.py") == ran
