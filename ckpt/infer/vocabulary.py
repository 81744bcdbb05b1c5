"""Words that people use for the same thing in the keys of state_dicts.

Collected from the names of modules in transformers, timm, torchvision, fairseq, GPT-2, Llama and
their converters. A word may be in several groups.
"""

# Words of one group mean the same.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("weight", "weights", "w", "gamma", "scale", "kernel", "g"),
    ("bias", "biases", "b", "beta", "offset", "shift"),
    ("mean", "avg", "mu"),
    ("var", "variance", "sigma"),
    ("running", "moving"),
    ("norm", "ln", "layernorm", "bn", "batchnorm", "rmsnorm", "gn", "groupnorm", "normalization"),
    ("conv", "convolution", "conv1d", "conv2d", "cnv"),
    ("linear", "lin", "fc", "dense", "proj", "projection", "affine"),
    ("attention", "attn", "att", "mha", "msa", "sa"),
    ("self", "sa"),
    ("cross", "ca", "encdec", "encoder", "xattn", "multihead", "src"),
    ("mlp", "ffn", "ff", "feedforward", "intermediate", "moe"),
    ("q", "query", "queries", "wq"),
    ("k", "key", "keys", "wk"),
    ("v", "value", "values", "wv", "val"),
    ("o", "out", "output", "wo"),
    ("qkv", "wqkv"),
    ("kv", "wkv"),
    ("gate", "w1", "router"),
    ("down", "w2"),
    ("up", "w3"),
    ("embedding", "emb", "embed", "embeddings", "embedder", "embeds"),
    ("token", "tok", "tokens", "word", "words", "vocab", "wte"),
    ("position", "pos", "positional", "positions", "wpe"),
    ("type", "segment"),
    ("class", "cls", "classifier", "classification"),
    ("head", "classifier", "fc", "output", "logits", "cls", "predictions"),
    ("block", "blocks", "blk", "layer", "layers", "lyr", "h", "unit", "units"),
    ("stage", "stages", "layer", "layers", "level", "levels", "group", "groups"),
    ("encoder", "enc"),
    ("decoder", "dec"),
    ("vision", "visual", "image", "img"),
    ("text", "language", "lang", "textual"),
    ("downsample", "downsampling", "shortcut", "skip", "identity"),
    ("upsample", "upsampling"),
    ("patch", "patches", "stem"),
    ("final", "last", "f"),
    ("first", "pre", "before", "input", "in"),
    ("second", "post", "after"),
    ("output", "out", "last"),
    ("backbone", "features", "body", "trunk", "feature", "model", "encoder"),
    ("expert", "experts"),
    ("depthwise", "dw"),
    ("pointwise", "pw"),
    ("relative", "rel"),
    ("context", "ctx", "added", "add", "txt"),
    ("module", "mod"),
    ("parameter", "param"),
    ("expand", "expansion"),
    ("reduce", "reduction", "squeeze"),
    ("se", "squeeze", "excitation"),
)

# One word that means several.
COMPOUNDS: dict[str, tuple[str, ...]] = {
    "dwconv": ("dw", "conv"),
    "pwconv": ("pw", "conv"),
    "denselayer": ("dense", "layer"),
    "denseblock": ("dense", "block"),
    "layernorm": ("norm",),
    "batchnorm": ("norm",),
    "rmsnorm": ("norm",),
    "groupnorm": ("norm",),
    "qproj": ("q", "proj"),
    "kproj": ("k", "proj"),
    "vproj": ("v", "proj"),
    "embeddings": ("embedding",),
    "wte": ("token", "embedding"),
    "wpe": ("position", "embedding"),
}

# Words that mean more if they are a whole dotted part: the last layer of an attention or MLP.
ALONE: dict[str, tuple[str, ...]] = {"proj": ("proj", "out")}

# Words that mean something else together; digits are words. Longer phrases go first. The norms of
# a Llama block are named after the layer before them: the second one is the MLP's.
PHRASES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("dense", "h", "to", "4", "h"): ("up",),
    ("dense", "4", "h", "to", "h"): ("down",),
    ("post", "attention", "layer", "norm"): ("mlp", "norm"),
    ("post", "attention", "norm"): ("mlp", "norm"),
    ("post", "attn", "norm"): ("mlp", "norm"),
    ("input", "layer", "norm"): ("attention", "norm"),
    ("input", "norm"): ("attention", "norm"),
    ("pre", "feedforward", "norm"): ("mlp", "norm"),
    ("feed", "forward"): ("mlp",),
    ("layer", "norm"): ("norm",),
    ("batch", "norm"): ("norm",),
    ("group", "norm"): ("norm",),
    ("rms", "norm"): ("norm",),
    ("instance", "norm"): ("norm",),
    ("layer", "scale"): ("layerscale",),
    ("token", "type"): ("type",),
    ("lm", "head"): ("head",),
    ("ln", "f"): ("final", "norm"),
    ("ln", "post"): ("final", "norm"),
    ("norm", "f"): ("final", "norm"),
    ("c", "attn"): ("qkv",),
    ("c", "fc"): ("up",),
    ("c", "proj"): ("proj",),
    ("self", "attn"): ("self", "attention"),
    ("w", "1"): ("gate",),
    ("w", "2"): ("down",),
    ("w", "3"): ("up",),
}

# Words of which one excludes the others, unless a name has several; all begin a group.
OPPOSITES: tuple[tuple[str, ...], ...] = (
    ("encoder", "decoder"),
    ("q", "k", "v"),
    ("weight", "bias"),
    ("mean", "var"),
    ("token", "position", "type"),
)

# Words that say little beside others.
FAINT = frozenset(
    ("linear", "lin", "fc", "dense", "proj", "projection", "affine", "layer", "layers", "block",
     "blocks", "module", "model", "net", "network", "the", "h", "stage", "stages", "encoder",
     "backbone", "features", "transformer")
)  # fmt: skip

# Places in a sequence, for names without an index; `BEFORE` and `BEHIND` all indices.
BEFORE, BEHIND = -1, 1_000_000
ORDINALS: dict[str, int] = {
    "q": 0, "query": 0, "wq": 0, "k": 1, "key": 1, "wk": 1, "v": 2, "value": 2, "wv": 2,
    "o": 3, "wo": 3, "out": BEHIND, "output": BEHIND,
    "first": BEFORE, "pre": BEFORE, "before": BEFORE, "in": BEFORE, "input": BEFORE,
    "second": 5, "post": BEHIND, "after": BEHIND, "final": BEHIND, "last": BEHIND,
    "gate": 0, "up": 1, "down": 2,
    "attention": 0, "attn": 0, "self": 0, "sa": 0, "mha": 0, "msa": 0, "cross": 1, "ca": 1,
    "encoder": 1, "decoder": 2,
    "mlp": 4, "ffn": 4, "ff": 4,
    "start": BEFORE, "end": BEHIND, "a": 0, "b": 1, "c": 2, "d": 3,
}  # fmt: skip

# Lists that are numbered from the last one to be applied to the first. MiDaS and DPT number the
# stages of their decoder so; transformers turns them round (``convert_dpt_to_pytorch.py``).
BACKWARDS = frozenset(("refinenet",))

# The order in which gate and up are joined, if a name says that both are in it. Without such a
# name nothing tells: GTE and HRM have up first.
GATED: dict[str, int] = {"gate": 0, "up": 1}

# Tensors that a module computes itself, which only some versions of it save. Sources: torch's
# BatchNorm, transformers, timm and the Llama code.
BUFFERS = frozenset(
    ("num_batches_tracked", "running_mean", "running_var", "relative_position_index", "attn_mask",
     "position_ids", "token_type_ids", "inv_freq", "freqs", "freqs_cis", "masked_bias",
     "relative_coords_table", "cos_cached", "sin_cached", "total_ops", "total_params", "mask",
     "causal_mask", "pixel_mean", "pixel_std")
)  # fmt: skip
