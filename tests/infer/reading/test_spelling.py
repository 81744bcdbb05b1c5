"""The readings of keys without dots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.infer.reading.spelling import read_keys

READ = {
    "bert/encoder/layer_0/output/dense/kernel": "bert.encoder.layer_0.output.dense.kernel",
    "conv1_conv/kernel:0": "conv1.conv.kernel",
    "block2b_dwconv/depthwise_kernel:0": "block2.1.dwconv.depthwise_kernel",
    "lora_unet_down_blocks_0_attn1_to_out_0.lora_up.weight": (
        "lora_unet_down_blocks.0.attn1_to_out.0.lora_up.weight"
    ),
    "layers.0.fc_1.weight": "layers.0.fc_1.weight",
    "encoder.layer_norm.weight": "encoder.layer_norm.weight",
}


@pytest.mark.parametrize(("key", "read"), READ.items(), ids=READ)
def test_key_is_read_with_dots(key: str, read: str) -> None:
    assert read_keys([key], []) == ([read], [])


def test_name_without_separators_is_read_by_the_other_side() -> None:
    names, _ = read_keys(
        ["model_ema.diffusion_modelinput_blocks00weight"],
        ["model.diffusion_model.input_blocks.0.0.weight"],
    )
    assert names == ["model_ema.diffusion_model.input_blocks.0.0.weight"]


def test_name_that_can_be_read_in_two_ways_stays() -> None:
    names, _ = read_keys(["ema.blocks11weight_of"], ["blocks.1.1.weight_of", "blocks.11.weight_of"])
    assert names == ["ema.blocks11weight_of"]


KEYS = st.lists(st.text("ab01_./:", min_size=1, max_size=8), unique=True, max_size=8)


@given(source=KEYS, target=KEYS)
def test_readings_of_one_side_are_unique(source: list[str], target: list[str]) -> None:
    for names, keys in zip(read_keys(source, target), (source, target), strict=True):
        assert len({*names}) == len(names) == len(keys)
