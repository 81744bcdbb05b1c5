"""The faster operations: dropout is dropout, and max-pooling's gradients are torch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ckpt.train.kernels import OnCpu, byte_mask

MODEL = nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 13 * 13, 10))


def gradients(model, images):
    model.zero_grad()
    functional.nll_loss(model(images).log_softmax(1), torch.arange(len(images)) % 10).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_max_pooling_has_torchs_gradients_bit_by_bit(dtype, form):
    torch.manual_seed(0)
    images = torch.randn(16, 1, 28, 28, dtype=dtype).to(memory_format=form)
    model = MODEL.to(dtype).to(memory_format=form)
    expected = gradients(model, images)
    with OnCpu():
        found = gradients(model, images)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_max_pooling_gradient_comes_channels_last():
    """That is what it is for; copied by torch itself it costs three times as much."""
    images = torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    seen = []
    with OnCpu():
        pooled = functional.max_pool2d(images, 2)
    pooled.grad_fn.register_hook(lambda inputs, _: seen.append(inputs[0].stride()))
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
    with OnCpu():
        dropped = functional.dropout(images, 0.25)
    kept = dropped != 0
    scaled = (images.float() * (1 / 0.75)).to(dtype)
    assert torch.equal(dropped[kept], scaled[kept])
    dropped.sum().backward()
    expected = kept.float() * (1 / 0.75)
    assert torch.equal(images.grad, expected.to(dtype))


def test_dropout_keeps_a_layout_and_needs_no_dense_input():
    images = torch.rand(4, 8, 6, 6).to(memory_format=torch.channels_last)
    with OnCpu():
        assert functional.dropout(images, 0.5).stride() == images.stride()
        assert functional.dropout(images[:, ::2, 1:], 0.5).shape == (4, 4, 5, 6)
        assert functional.dropout(images[:1].expand(4, 8, 6, 6), 0.5).shape == (4, 8, 6, 6)


UNTOUCHED = {
    "odd probability": lambda x: functional.dropout(x, 0.1),
    "evaluation": lambda x: functional.dropout(x, 0.25, training=False),
    "in place": lambda x: functional.dropout(x.clone(), 0.25, inplace=True),
    "everything": lambda x: functional.dropout(x, 1.0),
    "nothing": lambda x: functional.dropout(x, 0.0),
    "indices too": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "three dimensions": lambda x: functional.max_pool2d(x[0], 2),
}


@pytest.mark.parametrize("call", UNTOUCHED.values(), ids=UNTOUCHED)
def test_what_it_has_no_faster_form_for_is_torchs(call):
    images = torch.rand(2, 3, 8, 8)
    torch.manual_seed(0)
    expected = call(images)
    torch.manual_seed(0)
    with OnCpu():
        found = call(images)
    assert torch.equal(expected, found)


def test_a_module_is_reached_and_evaluation_draws_nothing():
    torch.manual_seed(0)
    module = nn.Dropout(0.5)
    before = torch.get_rng_state()
    with OnCpu():
        module.eval()(torch.ones(10))
        assert torch.equal(torch.get_rng_state(), before)
        kept = module.train()(torch.ones(8))
    torch.manual_seed(0)
    numbers = torch.empty(1, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    assert torch.equal(kept, (numbers >= 128) * 2.0)
