"""Conventions of naming that converters bridge, each as pairs of keys with the true operation.

The names are those of the projects: CompVis' LDM and diffusers (`convert_ldm_vae_checkpoint`),
Black Forest Labs' Flux and diffusers (`convert_flux_transformer_checkpoint_to_diffusers`), Keras'
EfficientNet and timm's ``tf_efficientnet``, Mesh TensorFlow's T5 and transformers, kohya's LoRA and
peft, and `LitEma`. A row is (old keys, new keys, old shapes, new shapes); one of either keeps its
name's tensor.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference
from ckpt.tensors import TensorEntry

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    old: tuple[str, ...]
    new: tuple[str, ...]
    old_shape: Shape
    new_shape: Shape
    verb: str = ""


def kept(old: str, new: str, *shape: int) -> Row:
    return Row((old,), (new,), shape, shape)


def norm(old: str, new: str, width: int) -> Iterator[Row]:
    yield kept(f"{old}.weight", f"{new}.weight", width)
    yield kept(f"{old}.bias", f"{new}.bias", width)


def layer(old: str, new: str, *shape: int) -> Iterator[Row]:
    yield kept(f"{old}.weight", f"{new}.weight", *shape)
    yield kept(f"{old}.bias", f"{new}.bias", shape[0])


def resnet(old: str, new: str, into: int, out: int) -> Iterator[Row]:
    yield from norm(f"{old}.norm1", f"{new}.norm1", into)
    yield from layer(f"{old}.conv1", f"{new}.conv1", out, into, 3, 3)
    yield from norm(f"{old}.norm2", f"{new}.norm2", out)
    yield from layer(f"{old}.conv2", f"{new}.conv2", out, out, 3, 3)
    if into != out:
        yield from layer(f"{old}.nin_shortcut", f"{new}.conv_shortcut", out, into, 1, 1)


def vae() -> Iterator[Row]:
    """The stages of the decoder are numbered from the other end."""
    widths = (16, 32, 64, 64)
    yield from layer("encoder.conv_in", "encoder.conv_in", 16, 3, 3, 3)
    into = 16
    for stage, out in enumerate(widths):
        old, new = f"encoder.down.{stage}", f"encoder.down_blocks.{stage}"
        for block in range(2):
            yield from resnet(f"{old}.block.{block}", f"{new}.resnets.{block}", into, out)
            into = out
        if stage < 3:
            yield from layer(f"{old}.downsample.conv", f"{new}.downsamplers.0.conv", out, out, 3, 3)
    for side in ("encoder", "decoder"):
        if side == "decoder":
            yield from layer("decoder.conv_in", "decoder.conv_in", 64, 4, 3, 3)
        for block in (1, 2):
            new = f"{side}.mid_block.resnets.{block - 1}"
            yield from resnet(f"{side}.mid.block_{block}", new, 64, 64)
        attention = f"{side}.mid_block.attentions.0"
        yield from norm(f"{side}.mid.attn_1.norm", f"{attention}.group_norm", 64)
        for old, new in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            weight = f"{side}.mid.attn_1.{old}.weight", f"{attention}.{new}.weight"
            yield Row((weight[0],), (weight[1],), (64, 64, 1, 1), (64, 64), "reshape")
            yield kept(f"{side}.mid.attn_1.{old}.bias", f"{attention}.{new}.bias", 64)
        if side == "encoder":
            yield from norm("encoder.norm_out", "encoder.conv_norm_out", 64)
            yield from layer("encoder.conv_out", "encoder.conv_out", 8, 64, 3, 3)
    for stage in range(4):
        out, into = widths[stage], widths[min(stage + 1, 3)]
        old, new = f"decoder.up.{stage}", f"decoder.up_blocks.{3 - stage}"
        for block in range(3):
            yield from resnet(
                f"{old}.block.{block}", f"{new}.resnets.{block}", into if block == 0 else out, out
            )
        if stage:
            yield from layer(f"{old}.upsample.conv", f"{new}.upsamplers.0.conv", out, out, 3, 3)
    yield from norm("decoder.norm_out", "decoder.conv_norm_out", 16)
    yield from layer("decoder.conv_out", "decoder.conv_out", 3, 16, 3, 3)
    yield from layer("quant_conv", "quant_conv", 8, 8, 1, 1)
    yield from layer("post_quant_conv", "post_quant_conv", 4, 4, 1, 1)


def parts(old: str, news: tuple[str, ...], width: int, size: int) -> Iterator[Row]:
    whole = len(news) * size
    for end, rest in (("weight", (width,)), ("bias", ())):
        names = tuple(f"{new}.{end}" for new in news)
        yield Row((f"{old}.{end}",), names, (whole, *rest), (size, *rest), "split")


def flux() -> Iterator[Row]:
    width = 32
    yield from layer("img_in", "x_embedder", width, 16)
    yield from layer("txt_in", "context_embedder", width, 24)
    for number in range(2):
        old, new = f"double_blocks.{number}", f"transformer_blocks.{number}"
        for stream, into, out, context in (
            ("img", ("to_q", "to_k", "to_v"), "to_out.0", ""),
            ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "_context"),
        ):
            yield from layer(
                f"{old}.{stream}_mod.lin", f"{new}.norm1{context}.linear", 6 * width, width
            )
            names = tuple(f"{new}.attn.{name}" for name in into)
            yield from parts(f"{old}.{stream}_attn.qkv", names, width, width)
            for one in ("query", "key"):
                after = "norm_" + ("added_" if context else "") + one[0]
                scale = f"{old}.{stream}_attn.norm.{one}_norm.scale"
                yield kept(scale, f"{new}.attn.{after}.weight", 8)
            yield from layer(f"{old}.{stream}_attn.proj", f"{new}.attn.{out}", width, width)
            ff = f"{new}.ff{context}.net"
            yield from layer(f"{old}.{stream}_mlp.0", f"{ff}.0.proj", 4 * width, width)
            yield from layer(f"{old}.{stream}_mlp.2", f"{ff}.2", width, 4 * width)
    yield from layer("final_layer.linear", "proj_out", 16, width)


def efficientnet() -> Iterator[Row]:
    def kernel(old: str, new: str, out: int, into: int, size: int) -> Row:
        names = (f"{old}/kernel:0",), (f"{new}.weight",)
        return Row(*names, (size, size, into, out), (out, into, size, size), "permute")

    def batch_norm(old: str, new: str, width: int) -> Iterator[Row]:
        names = {"gamma": "weight", "beta": "bias"}
        names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        for one, other in names.items():
            yield kept(f"{old}/{one}:0", f"{new}.{other}", width)

    yield kernel("stem_conv", "conv_stem", 16, 3, 3)
    yield from batch_norm("stem_bn", "bn1", 16)
    into = 16
    for stage, (out, expand, repeats) in enumerate(((8, 1, 1), (12, 4, 2), (20, 4, 2))):
        for block in range(repeats):
            old, new = f"block{stage + 1}{'ab'[block]}", f"blocks.{stage}.{block}"
            width, number = into * expand, 1
            if expand > 1:
                yield kernel(f"{old}_expand_conv", f"{new}.conv_pw", width, into, 1)
                yield from batch_norm(f"{old}_expand_bn", f"{new}.bn1", width)
                number = 2
            depthwise = f"{old}_dwconv/depthwise_kernel:0", f"{new}.conv_dw.weight"
            yield Row(
                (depthwise[0],), (depthwise[1],), (3, 3, width, 1), (width, 1, 3, 3), "permute"
            )
            yield from batch_norm(f"{old}_bn", f"{new}.bn{number}", width)
            for one, other, a, b in (("se_reduce", "conv_reduce", into // 4, width),
                                     ("se_expand", "conv_expand", width, into // 4)):  # fmt: skip
                yield kernel(f"{old}_{one}", f"{new}.se.{other}", a, b, 1)
                yield kept(f"{old}_{one}/bias:0", f"{new}.se.{other}.bias", a)
            last = "conv_pwl" if expand > 1 else "conv_pw"
            yield kernel(f"{old}_project_conv", f"{new}.{last}", out, width, 1)
            yield from batch_norm(f"{old}_project_bn", f"{new}.bn{number + 1}", out)
            into = out
    yield kernel("top_conv", "conv_head", 64, into, 1)
    yield from batch_norm("top_bn", "bn2", 64)
    names = ("predictions/kernel:0",), ("classifier.weight",)
    yield Row(*names, (64, 10), (10, 64), "transpose")
    yield kept("predictions/bias:0", "classifier.bias", 10)


def t5() -> Iterator[Row]:
    """Numbers have leading zeros, and all but the tables are transposed, squares too."""
    yield kept("shared/embedding", "shared.weight", 96, 32)
    for side, kinds in (
        ("encoder", ("SelfAttention", "DenseReluDense")),
        ("decoder", ("SelfAttention", "EncDecAttention", "DenseReluDense")),
    ):
        for block in range(2):
            for number, kind in enumerate(kinds):
                old = f"{side}/block_{block:03}/layer_{number:03}"
                new = f"{side}.block.{block}.layer.{number}"
                if kind == "DenseReluDense":
                    for one, shape in (("wi", (32, 48)), ("wo", (48, 32))):
                        keys = (f"{old}/{kind}/{one}/kernel",), (f"{new}.{kind}.{one}.weight",)
                        yield Row(*keys, shape, shape[::-1], "transpose")
                else:
                    for one in "qkvo":
                        keys = (f"{old}/{kind}/{one}",), (f"{new}.{kind}.{one}.weight",)
                        yield Row(*keys, (32, 32), (32, 32), "transpose")
                yield kept(f"{old}/layer_norm/scale", f"{new}.layer_norm.weight", 32)
            if block == 0:
                table = "SelfAttention/relative_attention_bias"
                yield kept(
                    f"{side}/block_000/layer_000/{table}",
                    f"{side}.block.0.layer.0.{table.replace('/', '.')}.weight", 16, 4,
                )  # fmt: skip
        yield kept(f"{side}/final_layer_norm/scale", f"{side}.final_layer_norm.weight", 32)


def kohya() -> Iterator[Row]:
    for number in range(3):
        for name in ("self_attn_q_proj", "self_attn_k_proj", "mlp_fc1", "mlp_fc2"):
            module = f"lora_te1_text_model_encoder_layers_{number}_{name}"
            new = f"text_encoder.text_model.encoder.layers.{number}.{name}".replace(
                "attn_", "attn.").replace("mlp_", "mlp.")  # fmt: skip
            yield kept(f"{module}.lora_down.weight", f"{new}.lora_A.weight", 4, 32)
            yield kept(f"{module}.lora_up.weight", f"{new}.lora_B.weight", 32, 4)


def moving_average() -> Iterator[Row]:
    """The names have no dots."""
    for number in range(2):
        for name in ("attn.to_q", "attn.to_k", "attn.to_v", "ff.net.0"):
            key = f"model.blocks.{number}.{name}.weight"
            yield kept("model_ema." + key.removeprefix("model.").replace(".", ""), key, 16, 16)


WHOLE = {
    "LDM's autoencoder": vae,
    "Keras' EfficientNet": efficientnet,
    "T5 of Mesh TensorFlow": t5,
    "kohya's LoRA": kohya,
    "moving average": moving_average,
}
ASKED = {"Flux": flux}


def registered(entry: TensorEntry) -> tuple[bool, int]:
    """diffusers has the stages of a decoder in the order of their numbers."""
    stage = re.match(r"decoder\.up_blocks\.(\d+)", entry.key)
    return (True, int(stage[1])) if stage else (False, 0)


def inferred(rows: list[Row], *, backwards: bool) -> Inference:
    olds = [TensorEntry(key, "float32", row.old_shape) for row in rows for key in row.old]
    news = [TensorEntry(key, "float32", row.new_shape) for row in rows for key in row.new]
    news.sort(key=registered)
    return infer(news, olds) if backwards else infer(olds, news)


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("make", [*WHOLE.values(), *ASKED.values()], ids=[*WHOLE, *ASKED])
def test_nothing_that_is_sure_is_wrong(
    make: Callable[[], Iterator[Row]], *, backwards: bool
) -> None:
    rows = [*make()]
    found = inferred(rows, backwards=backwards)
    sides = [(row.new, row.old) if backwards else (row.old, row.new) for row in rows]
    kept_keys = {(a, b) for (a, b), row in zip(sides, rows, strict=True) if not row.verb}
    changed = {(a, b) for (a, b), row in zip(sides, rows, strict=True) if row.verb}
    for match in found.matches:
        if match.confidence is not Confidence.AMBIGUOUS:
            assert ((match.source,), (match.target,)) in kept_keys
    for one in found.operations:
        if one.confidence is not Confidence.AMBIGUOUS:
            assert (one.sources, one.targets) in changed


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_convention_is_bridged_whole(make: Callable[[], Iterator[Row]]) -> None:
    rows = [*make()]
    found = inferred(rows, backwards=False)
    assert found.settled, [*found.ambiguous()][:4]
    assert {(m.source, m.target) for m in found.matches} == {
        (row.old[0], row.new[0]) for row in rows if not row.verb
    }
    assert {(one.verb, one.sources, one.targets) for one in found.operations} == {
        (row.verb, row.old, row.new) for row in rows if row.verb
    }
