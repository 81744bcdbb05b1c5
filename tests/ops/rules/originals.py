"""State_dicts as the papers' repositories published them, made of timm's models.

Each family's keys are turned back by hand, after the source of timm 1.0.31; `change` of `Family`
gives what the rest needs: other shapes, or tensors that timm drops or makes. That timm's own
filter function and strict loading accept the result is what shows that it is right.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        model: The model, as the command takes it.
        back: Pairs for `re.sub`, in turn, from timm's keys to the original ones.
        change: What is left to change in the original state_dict.
        made: How many keys of timm's model are computed from values, which no rule can express.
    """

    model: str
    back: list[tuple[str, str]]
    change: Callable[[State], None] = field(default=lambda state: None)
    computed: tuple[str, ...] = ()


def shifted(pattern: str, new: str) -> list[tuple[str, str]]:
    """A pattern with ``N``, for each number one less in the new key, which has it as ``M``."""
    pairs = [(pattern.replace("N", str(n)), new.replace("M", str(n - 1))) for n in range(1, 5)]
    return [(f"^{old}", made) for old, made in pairs]


def original(state: State, family: Family) -> State:
    """Random tensors under the original keys, of the shapes of timm's model."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for key, it in state.items():
        old = key
        for pattern, to in family.back:
            old = re.sub(pattern, to, old)
        random = torch.rand(it.shape, generator=generator)
        made[old] = random if it.is_floating_point() else it
    family.change(made)
    return made


def _swin(state: State) -> None:
    for key in [key for key in state if key.endswith("relative_position_bias_table")]:
        state[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
    state["layers.0.blocks.1.attn_mask"] = torch.rand(4, 49, 49)


def _swin_v2(state: State) -> None:
    for key in [key for key in state if key.endswith("logit_scale")]:
        state[key.replace("logit_scale", "relative_coords_table")] = torch.rand(1, 15, 15, 2)


def _grn(state: State) -> None:
    for key in [key for key in state if ".grn." in key]:
        state[key] = state[key].reshape(1, 1, 1, -1)


def _flat(*ends: str) -> Callable[[State], None]:
    """Without the last two dimensions: linear layers that timm has as convolutions."""

    def change(state: State) -> None:
        for key in [key for key in state if key.endswith(ends)]:
            state[key] = state[key].flatten(1)

    return change


def _res_mlp(state: State) -> None:
    for key in [key for key in state if key.endswith((".alpha", ".beta"))]:
        state[key] = state[key].flatten()


def _xcit(state: State) -> None:
    for key in [key for key in state if ".attn.q." in key]:
        parts = [state.pop(key.replace(".q.", f".{part}.")) for part in "qkv"]
        state[key.replace(".q.", ".qkv.")] = torch.cat(parts)


def _clip(state: State) -> None:
    state["visual.proj"] = state.pop("visual.head.weight").T.contiguous()
    del state["visual.head.bias"]
    for key in ("visual.positional_embedding", "visual.class_embedding"):
        state[key] = state[key].flatten(0, -2).squeeze(0)
    state["text_projection"], state["logit_scale"] = torch.rand(4, 4), torch.rand(())


def _beit3(state: State) -> None:
    for key in [key for key in state if ".qkv." in key]:
        for part, it in zip("qkv", state.pop(key).chunk(3), strict=True):
            state[key.replace(".qkv.", f".{part}_proj.A.")] = it.clone()
            state[key.replace(".qkv.", f".{part}_proj.B.")] = it + 1
    place = state.pop("beit3.encoder.embed_positions.A.weight")[0]
    state["beit3.encoder.embed_positions.A.weight"] = torch.cat([torch.rand(2, 12), place])
    state["beit3.text_embed.weight"] = torch.rand(9, 12)


def _pe(state: State) -> None:
    pool = "visual.attn_pool.attn.in_proj_"
    for end in ("weight", "bias"):
        q, kv = (state.pop(f"visual.attn_pool.attn.{part}.{end}") for part in ("q", "kv"))
        state[f"{pool}{end}"] = torch.cat([q, kv])
    state["visual.proj"] = state.pop("visual.head.weight").T.contiguous()
    del state["visual.head.bias"]
    for key in ("visual.positional_embedding", "visual.class_embedding"):
        state[key] = state[key].flatten(0, -2).squeeze(0)


def _tnt(state: State) -> None:
    state["inner_pos"] = state["inner_pos"].flatten(2).permute(0, 2, 1).contiguous()
    state["outer_tokens"] = torch.rand(1, 4, 4)


def _dinov2(state: State) -> None:
    state["mask_token"] = torch.rand(1, 12)
    state["pos_embed"] = torch.cat([torch.rand(1, 1, 12), state["pos_embed"]], 1)


def _extra(**shapes: tuple[int, ...]) -> Callable[[State], None]:
    return lambda state: state.update({key: torch.rand(shape) for key, shape in shapes.items()})


_SMALL = "embed_dim=12, depth=2, num_heads=2"
_HEAD = (r"^head\.fc\.", "head.")
_BACK_TO_STAGES = [
    *shifted(r"layers\.N\.downsample", "layers.M.downsample"),
    _HEAD,
]
_CONVNEXT = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample", r"downsample_layers.\1"),
    (r"^stages\.(\d+)\.blocks", r"stages.\1"),
    ("conv_dw", "dwconv"),
    (r"mlp\.grn\.bias", "grn.beta"),
    (r"mlp\.grn\.weight", "grn.gamma"),
    (r"mlp\.fc", "pwconv"),
    _HEAD,
    (r"^head\.norm", "norm"),
]
_CLIP = [
    (r"patch_embed\.proj", "conv1"),
    ("pos_embed", "positional_embedding"),
    ("norm_pre", "ln_pre"),
    (r"^norm\.", "ln_post."),
    (r"^blocks\.", "transformer.resblocks."),
    (r"norm(\d)", r"ln_\1"),
    (r"qkv\.", "in_proj_"),
    (r"attn\.proj", "attn.out_proj"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    ("cls_token", "class_embedding"),
    ("^", "visual."),
]

_MVIT_BLOCKS = [(stage, n) for stage, depth in enumerate((1, 2, 5, 2)) for n in range(depth)]

FAMILIES = {
    "swin": Family(
        "swin_tiny_patch4_window7_224(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4))",
        _BACK_TO_STAGES, _swin,
    ),
    "swinv2": Family(
        "swinv2_tiny_window8_256(embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4))",
        _BACK_TO_STAGES, _swin_v2,
    ),
    "convnext": Family("convnext_tiny(depths=(1, 1, 2, 1), dims=(4, 8, 12, 16))", _CONVNEXT),
    "convnextv2": Family(
        "convnextv2_tiny(depths=(1, 1, 2, 1), dims=(4, 8, 12, 16))", _CONVNEXT, _grn
    ),
    "deit3": Family(
        f"deit3_small_patch16_224({_SMALL})", [(r"ls(\d)\.gamma", r"gamma_\1")]
    ),
    "beit": Family(
        f"beit_base_patch16_224({_SMALL})", [],
        _extra(**{"blocks.0.attn.relative_position_index": (197, 197)}),
    ),
    "clip": Family(f"vit_base_patch16_clip_224.openai({_SMALL}, num_classes=8)", _CLIP, _clip),
    "beit3": Family(
        f"beit3_base_patch16_224({_SMALL})",
        [
            (r"^cls_token", "vision_embed.cls_token"),
            (r"^patch_embed", "vision_embed"),
            (r"^pos_embed", "encoder.embed_positions.A.weight"),
            (r"^blocks\.", "encoder.layers."),
            (r"norm1\.", "self_attn_layer_norm.A."),
            (r"norm2\.", "final_layer_norm.A."),
            (r"attn\.norm", "attn.inner_attn_ln.A"),
            (r"attn\.proj", "attn.out_proj.A"),
            (r"\.attn\.", ".self_attn."),
            (r"mlp\.norm", "mlp.ffn_layernorm"),
            (r"mlp\.", "ffn.A."),
            (r"^(encoder|vision_embed)", r"beit3.\1"),
        ],
        _beit3,
    ),
    "dinov2_registers": Family(
        f"vit_small_patch14_reg4_dinov2({_SMALL})", [("reg_token", "register_tokens")], _dinov2,
        computed=("cls_token",),
    ),
    "perception_encoder": Family(
        "vit_pe_core_tiny_patch16_384(embed_dim=64, depth=2, num_heads=2, num_classes=8)",
        [(r"^attn_pool\.(norm)", r"attn_pool.layernorm"),
         (r"^attn_pool\.latent", r"attn_pool.probe"),
         (r"^attn_pool\.(q|kv|proj)", r"attn_pool.attn.\1"), *_CLIP],
        _pe,
    ),
    "xcit": Family(
        f"xcit_nano_12_p16_224({_SMALL})", [("pos_embed", "pos_embeder")], _xcit
    ),
    "cait": Family(f"cait_xxs24_224({_SMALL})", [("^", "module.")]),
    "res_mlp": Family(
        "resmlp_12_224",
        [(r"^stem\.", "patch_embed."), (r"linear_tokens\.", "attn."),
         (r"mlp_channels\.", "mlp."), (r"\.ls(\d)", r".gamma_\1")],
        _res_mlp,
    ),
    "pvt_v2": Family(
        "pvt_v2_b0(depths=(1, 2, 1, 1), embed_dims=(4, 8, 12, 16), num_heads=(1, 2, 2, 2))",
        [(r"^patch_embed", "patch_embed1"),
         *[(rf"^stages\.{n}\.downsample", f"patch_embed{n + 1}") for n in (1, 2, 3)],
         *[(rf"^stages\.{n}\.blocks", f"block{n + 1}") for n in range(4)],
         *[(rf"^stages\.{n}\.norm", f"norm{n + 1}") for n in range(4)],
         ("dwconv", "dwconv.dwconv")],
    ),
    "focalnet": Family(
        "focalnet_tiny_lrf",
        [(r"ls(\d)\.gamma", r"gamma_\1"), (r"^stem", "patch_embed"),
         *shifted(r"layers\.N\.downsample", "layers.M.downsample"), _HEAD],
        _flat("modulation.f.weight"),
    ),
    "poolformer": Family(
        "poolformer_s12",
        [(r"^stem\.conv", "patch_embed.proj"), _HEAD, (r"^head\.norm", "norm"),
         *[(rf"^stages\.{n}\.downsample\.conv", f"network.{2 * n - 1}.proj") for n in (1, 2, 3)],
         *[(rf"^stages\.{n}\.blocks", f"network.{2 * n}") for n in range(4)],
         (r"layer_scale(\d)\.scale", r"layer_scale_\1")],
    ),
    "mvitv2": Family(
        "mvitv2_tiny",
        [(r"shortcut_proj_attn", "proj"), (r"head\.fc", "head.projection"),
         *[(rf"^stages\.{stage}\.blocks\.{n}\.", f"blocks.{at}.")
           for at, (stage, n) in enumerate(_MVIT_BLOCKS)]],
    ),
    "hiera": Family(
        "hiera_tiny_224(embed_dim=8, num_heads=1, stages=(1, 1, 1, 1))",
        [(r"^head\.fc", "head.projection"), (r"^head\.norm", "norm")],
    ),
    "davit": Family(
        "davit_tiny(depths=(1, 1, 2, 1), embed_dims=(4, 8, 12, 16), num_heads=(1, 2, 2, 2))",
        [(r"^stem\.", "patch_embeds.0."), _HEAD, (r"^head\.norm", "norms"),
         (r"^stages\.(\d)\.downsample", r"patch_embeds.\1"),
         (r"^patch_embeds\.(\d)\.conv", r"patch_embeds.\1.proj"),
         (r"^stages\.(\d)\.blocks", r"main_blocks.\1"), ("cpe1", "cpe.0"), ("cpe2", "cpe.1")],
    ),
    "levit": Family(
        "levit_128s", [], _extra(**{"stages.0.blocks.0.attn.attention_bias_idxs": (4, 4)})
    ),
    "tnt": Family(
        "tnt_s_patch16_224(embed_dim=12, depth=2)",
        [("patch_pos", "outer_pos"), ("pixel_pos", "inner_pos"), ("pixel_embed", "patch_embed"),
         (r"norm(\d)_proj", r"proj_norm\1"), (r"\.norm_in\.", ".inner_norm1."),
         (r"\.attn_in\.", ".inner_attn."), (r"\.norm_mlp_in\.", ".inner_norm2."),
         (r"\.mlp_in\.", ".inner_mlp."), (r"\.norm_out\.", ".outer_norm1."),
         (r"\.attn_out\.", ".outer_attn."), (r"\.norm_mlp\.", ".outer_norm2."),
         (r"\.mlp\.", ".outer_mlp.")],
        _tnt,
    ),
}  # fmt: skip
