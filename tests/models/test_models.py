"""The definitions that come with ckpt."""

import pytest
import torch
from ckpt.models import mnist_cnn, mnist_embed

MODELS = pytest.mark.parametrize("model", [mnist_cnn, mnist_embed], ids=["cnn", "embed"])


@MODELS
def test_net_gives_log_probabilities_of_ten_classes(model):
    net = model.Net().eval()
    log_probs = net(torch.rand(3, 1, 28, 28))
    assert log_probs.shape == (3, 10)
    assert torch.allclose(log_probs.exp().sum(dim=1), torch.ones(3))
    assert sum(parameter.numel() for parameter in net.parameters()) == 609_354


@MODELS
def test_net_gives_float32_under_autocast_and_float64_for_float64(model):
    net = model.Net().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(torch.rand(2, 1, 28, 28)).dtype == torch.float32
    assert net.double()(torch.rand(2, 1, 28, 28).double()).dtype == torch.float64


def test_the_two_nets_are_one_function_under_other_keys():
    cnn, embed = mnist_cnn.Net().eval(), mnist_embed.Net().eval()
    renamed = {key.replace("conv", "embed"): value for key, value in cnn.state_dict().items()}
    embed.load_state_dict(renamed, strict=True)
    images = torch.rand(2, 1, 28, 28)
    assert list(embed.state_dict()) == list(renamed)
    assert torch.equal(cnn(images), embed(images))
