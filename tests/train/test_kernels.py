"""The faster modules: dropout is dropout, and max-pooling's gradients are torch's.

Whoever calls them, and however often: checkpointing, `torch.func`, double backward, compilation.
"""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ckpt.train.kernels import Dropout, MaxPool2d, byte_mask, quicken
from ckpt.train.loop import Trainer
from ckpt.train.recipes.recipe import Recipe

MODEL = nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 13 * 13, 10))


def gradients(model, images):
    model.zero_grad()
    functional.nll_loss(model(images).log_softmax(1), torch.arange(len(images)) % 10).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_max_pooling_has_torchs_gradients_bit_by_bit(dtype, form):
    torch.manual_seed(0)
    images = torch.randn(16, 1, 28, 28, dtype=dtype).to(memory_format=form)
    model = MODEL.to(dtype).to(memory_format=form)
    faster = copy.deepcopy(model)
    quicken(faster)
    assert equal(gradients(model, images), gradients(faster, images))


def test_max_pooling_gradient_comes_channels_last():
    """That is what it is for; copied by torch itself it costs three times as much."""
    images = torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    seen = []
    pooled = MaxPool2d(2)(images)
    pooled.grad_fn.register_prehook(lambda gradients: seen.append(gradients[0].stride()))
    pooled.backward(torch.randn(4, 8, 3, 3))
    assert seen == [torch.empty(4, 8, 3, 3, memory_format=torch.channels_last).stride()]


@pytest.mark.parametrize("threshold", [1, 64, 128, 200])
def test_a_mask_is_exact_and_its_elements_are_independent(threshold):
    """Counts of a million draws, within five standard deviations of the binomial."""
    torch.manual_seed(threshold)
    count, p = 1_000_000, threshold / 256
    mask = byte_mask(torch.empty(count), threshold)
    assert mask.unique().tolist() == [0, 1]
    deviation = (count * p * (1 - p)) ** 0.5
    assert abs(float((mask == 0).sum()) - count * p) < 5 * deviation
    for lag in (1, 8, 4096):
        both = float(((mask[lag:] == 0) & (mask[:-lag] == 0)).sum())
        assert abs(both - count * p * p) < 5 * (count * p * p) ** 0.5


def test_every_byte_of_a_number_is_random():
    torch.manual_seed(1)
    mask = byte_mask(torch.empty(80_000), 128).view(-1, 8)
    assert mask.mean(0).tolist() == pytest.approx([0.5] * 8, abs=0.02)


@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 3, 4, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_scales_what_it_keeps_and_so_does_its_gradient(shape, dtype):
    torch.manual_seed(0)
    images = torch.rand(shape).add(1).to(dtype).requires_grad_()
    dropped = Dropout(0.25)(images)
    kept = dropped != 0
    scaled = (images.float() * (1 / 0.75)).to(dtype)
    assert torch.equal(dropped[kept], scaled[kept])
    dropped.sum().backward()
    expected = kept.float() * (1 / 0.75)
    assert torch.equal(images.grad, expected.to(dtype))


def test_dropout_keeps_a_layout_and_needs_no_dense_input():
    images = torch.rand(4, 8, 6, 6).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(images).stride() == images.stride()
    assert Dropout(0.5)(images[:, ::2, 1:]).shape == (4, 4, 5, 6)
    assert Dropout(0.5)(images[:1].expand(4, 8, 6, 6)).shape == (4, 8, 6, 6)


class Kept(torch.Tensor):
    """A subclass."""


UNTOUCHED = {
    "odd probability": (nn.Dropout(0.1), lambda x: x),
    "evaluation": (nn.Dropout(0.25).eval(), lambda x: x),
    "in place": (nn.Dropout(0.25, inplace=True), torch.clone),
    "everything": (nn.Dropout(1.0), lambda x: x),
    "nothing": (nn.Dropout(0.0), lambda x: x),
    "subclass of tensors": (nn.Dropout(0.25), lambda x: x.as_subclass(Kept)),
    "three dimensions": (nn.MaxPool2d(2), lambda x: x[0]),
    "other dropouts": (nn.Dropout2d(0.25), lambda x: x),
}


@pytest.mark.parametrize(("module", "prepare"), UNTOUCHED.values(), ids=UNTOUCHED)
def test_what_it_has_no_faster_form_for_is_torchs(module, prepare):
    images = torch.rand(2, 3, 8, 8)
    torch.manual_seed(0)
    expected = module(prepare(images))
    faster = copy.deepcopy(module)
    quicken(faster)
    torch.manual_seed(0)
    found = faster(prepare(images))
    assert torch.equal(expected, found)
    assert type(expected) is type(found)


def test_pooling_gives_indices_too():
    images = torch.rand(2, 3, 8, 8)
    found = MaxPool2d(2, return_indices=True)(images)
    assert equal(nn.MaxPool2d(2, return_indices=True)(images), found)


def test_modules_of_a_model_get_the_type_and_evaluation_draws_nothing():
    class Mine(nn.Dropout):
        """A subclass may do anything: it stays."""

    model = nn.Sequential(nn.Dropout(0.5), Mine(0.5))
    hooked = []
    model[0].register_forward_hook(lambda *_: hooked.append(1))
    quicken(model)
    assert [type(module) for module in model] == [Dropout, Mine]
    assert isinstance(copy.deepcopy(model)[0], nn.Dropout)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.eval()(torch.ones(10))
    assert torch.equal(torch.get_rng_state(), before)
    assert hooked == [1]


class Block(nn.Module):
    """Convolution, pooling and dropout, run again in the backward pass if `reentrant` is given."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Dropout(0.5))
        self.outer = nn.Linear(4 * 13 * 13, 10)

    def forward(self, images):
        if self.reentrant is None:
            features = self.inner(images)
        else:
            features = checkpoint(self.inner, images, use_reentrant=self.reentrant)
        return self.outer(features.flatten(1))


def block(reentrant=None):
    torch.manual_seed(0)
    built = Block(reentrant).to(memory_format=torch.channels_last)
    quicken(built)
    return built


# torch itself refuses `grad` through the reentrant form.
@pytest.mark.parametrize(
    ("reentrant", "way"), [(False, "backward"), (False, "grad"), (True, "backward")]
)
def test_checkpointing_changes_no_gradient(reentrant, way):
    """The forward pass that runs again draws the same mask, from whatever the backward pass."""
    images = torch.randn(8, 1, 28, 28, requires_grad=True)
    found = []
    for model in (block(), block(reentrant)):
        torch.manual_seed(5)
        loss = model(images).square().sum()
        if way == "backward":
            loss.backward()
            found.append([parameter.grad for parameter in model.parameters()])
        else:
            found.append(torch.autograd.grad(loss, [*model.parameters()]))
    assert equal(*found)


def test_trainer_has_them_and_its_gradients_are_those_without_checkpointing():
    images, labels = torch.randn(8, 1, 28, 28), torch.arange(8)
    found = []
    for reentrant in (None, False):
        torch.manual_seed(0)
        trainer = Trainer(Block(reentrant), "bf16", Recipe())
        assert type(trainer.model.inner[2]) is Dropout
        torch.manual_seed(5)
        trainer.accumulate([(images, labels)], 8)
        found.append([parameter.grad for parameter in trainer.model.parameters()])
    assert equal(*found)


def test_gradients_have_gradients():
    """A gradient penalty, against differences in float64: the mask is the same for a seed."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(2))
    quicken(model)

    def seeded(x):
        torch.manual_seed(3)
        return model(x)

    images = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, images)
    assert torch.autograd.gradgradcheck(seeded, images)


of_torch_itself = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@of_torch_itself
def test_inside_transforms_of_functions_they_are_torchs():
    faster, images = block(), torch.randn(4, 1, 28, 28)
    slow = Block(None).to(memory_format=torch.channels_last)
    slow.load_state_dict(faster.state_dict())
    weights, found = dict(slow.named_parameters()), []
    for model in (faster, slow):

        def loss(weights, images, model=model):
            return torch.func.functional_call(model, weights, (images,)).square().sum()

        torch.manual_seed(1)
        found.append(torch.func.grad(loss)(weights, images))
        each = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="different")
        found.append(each(weights, images[:, None]))
        found.append({"jvp": torch.func.jvp(model, (images,), (images,))[1]})
    assert all(equal(found[at].values(), found[at + 3].values()) for at in range(3))


@of_torch_itself
def test_forward_gradients_work():
    images = torch.randn(4, 1, 28, 28)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(images, torch.ones_like(images))
        assert forward_ad.unpack_dual(block()(dual)).tangent.shape == (4, 10)


@pytest.mark.long
def test_compiled_model_trains():
    torch.compiler.reset()
    model, images = block(), torch.randn(4, 1, 28, 28)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(images).sum().backward()
    assert model.outer.bias.grad.tolist() == [4.0] * 10
    torch.compiler.reset()
