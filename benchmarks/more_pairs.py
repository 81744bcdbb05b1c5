"""Pairs made of torchvision's models by consistent renaming, and how well they are inferred.

    python benchmarks/more_pairs.py [--held-out] [--seeds N] [--digests] [--show N]
                                    [--models NAME,…] [--quick]
    python benchmarks/more_pairs.py -o FOLDER      writes them as files, for benchmarks/infer.py

Every pair is a model and a few random schemes, the same for the same seed: words replaced by
synonyms, shortened, or made meaningless; wrappers; indices shifted, glued or freed; levels put
in or flattened; the order of registration shuffled; buffers dropped. The first models and seeds
were used while the method was developed; those of --held-out were not.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infer import Pair, Score, score, table
from quick import parse_options

Keys = dict[str, list[int]]
Renames = dict[str, str]
Scheme = Callable[[list[str], random.Random], Callable[[str], str]]

LOOKED_AT = ["resnet18", "vit_b_16", "densenet121", "swin_t", "mobilenet_v2", "googlenet",
             "squeezenet1_1", "maxvit_t"]  # fmt: skip
HELD_OUT = ["resnet50", "convnext_tiny", "efficientnet_b0", "inception_v3", "shufflenet_v2_x1_0",
            "mnasnet1_0", "swin_v2_t", "vgg11_bn", "mobilenet_v3_small", "alexnet",
            "nn.Transformer"]  # fmt: skip

SYNONYMS: dict[str, list[str]] = {
    "conv": ["convolution", "cnv", "conv2d"],
    "bn": ["norm", "batchnorm", "batch_norm"],
    "norm": ["ln", "layernorm", "layer_norm", "bn"],
    "ln": ["norm", "layernorm", "layer_norm"],
    "layer": ["stage", "block", "layers", "group"],
    "layers": ["blocks", "layer", "h"],
    "block": ["blocks", "layer", "unit", "body"],
    "features": ["backbone", "trunk", "body", "feature_extractor", "stages"],
    "downsample": ["shortcut", "skip", "downsampling", "proj"],
    "fc": ["head", "classifier", "linear", "dense"],
    "classifier": ["head", "fc", "cls_head"],
    "head": ["classifier", "fc", "heads"],
    "heads": ["head", "classifier"],
    "mlp": ["ffn", "feed_forward", "ff"],
    "attn": ["attention", "self_attn", "msa"],
    "attention": ["attn", "att", "self_attn"],
    "self_attn": ["self_attention", "attn", "sa"],
    "multihead_attn": ["cross_attn", "encoder_attn", "cross_attention"],
    "linear": ["fc", "lin", "dense"],
    "proj": ["projection", "out_proj", "out"],
    "encoder": ["enc", "encoder_stack"],
    "decoder": ["dec", "decoder_stack"],
    "embedding": ["embed", "emb", "embeddings"],
    "pos": ["position", "positional"],
    "class": ["cls"],
    "token": ["tok"],
    "fire": ["module", "squeeze_block"],
    "squeeze": ["reduce", "sq"],
    "expand": ["exp", "expansion"],
    "branch": ["path", "tower", "br"],
    "stem": ["patch_embed", "entry"],
    "weight": ["gamma", "w", "kernel", "scale"],
    "bias": ["beta", "b", "offset"],
    "denseblock": ["dense_block", "block", "stage"],
    "denselayer": ["dense_layer", "layer", "unit"],
    "transition": ["trans", "transition_layer"],
    "running_mean": ["moving_mean", "mean"],
    "running_var": ["moving_variance", "var"],
}
_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_PIECE = re.compile(r"[A-Za-z_]+|\d+|.")


def keys_of(model: str) -> Keys:
    """Keys and shapes of a model of torchvision or torch."""
    import warnings

    from ckpt.definitions.importing import declare_torchvision_ops

    declare_torchvision_ops()
    import torch
    import torchvision

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if model == "nn.Transformer":
            made: Any = torch.nn.Transformer(64, 4, 3, 3, 256)
        else:
            made = getattr(torchvision.models, model)(weights=None)
        return {key: list(tensor.shape) for key, tensor in made.state_dict().items()}


def words_in(keys: list[str]) -> list[str]:
    """Pieces of names without digits and dots, those of leaves left out."""
    found: dict[str, None] = {}
    for key in keys:
        for part in key.split("."):
            if part not in _LEAVES:
                found.update(dict.fromkeys(p for p in _PIECE.findall(part) if p.strip("_").isalpha()
                                           or (p.replace("_", "").isalpha())))  # fmt: skip
    return list(found)


def by_word(table: Renames) -> Callable[[str], str]:
    """Replace pieces of names by a table."""

    def rename(key: str) -> str:
        parts = []
        for part in key.split("."):
            if part in _LEAVES:
                parts.append(table.get(part, part))
            else:
                parts.append("".join(table.get(piece, piece) for piece in _PIECE.findall(part)))
        return ".".join(parts)

    return rename


def synonyms(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Words become others that people use; leaves only sometimes."""
    chosen: Renames = {}
    for word in words_in(keys):
        if word in SYNONYMS and rng.random() < 0.7:
            other = rng.choice(SYNONYMS[word])
            if other not in chosen.values():
                chosen[word] = other
    return by_word(chosen)


def leaf_synonyms(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Leaves become others that people use."""
    return by_word({leaf: rng.choice(SYNONYMS[leaf]) for leaf in sorted(_LEAVES & SYNONYMS.keys())})


def abbreviations(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Words lose their vowels or their end."""
    chosen: Renames = {}
    for word in words_in(keys):
        if len(word) > 4 and rng.random() < 0.6:
            short = word[0] + re.sub("[aeiou]", "", word[1:]) if rng.random() < 0.5 else word[:4]
            if short not in chosen.values():
                chosen[word] = short
    return by_word(chosen)


def meaningless(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Some words become syllables."""
    chosen: Renames = {}
    share = rng.choice([0.3, 0.6, 1.0])
    for word in words_in(keys):
        if rng.random() < share:
            made = _syllables(rng)
            if made not in chosen.values():
                chosen[word] = made
    return by_word(chosen)


def wrapper(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """A prefix before all."""
    prefix = rng.choice(["module.", "_orig_mod.", "model.", "net.encoder.", "backbone."])
    return lambda key: prefix + key


def one_based(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Indices of one row of modules move by one."""
    rows = sorted({m[1] for key in keys for m in re.finditer(r"([A-Za-z_]+)\.\d+\.", key)})
    if not rows:
        return lambda key: key
    row = rng.choice(rows)
    pattern = re.compile(rf"(?<![A-Za-z_]){re.escape(row)}\.(\d+)\.")
    return lambda key: pattern.sub(lambda m: f"{row}.{int(m[1]) + 1}.", key)


def glued(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """`layer.1` becomes `layer1`, or the other way round."""
    if rng.random() < 0.5:
        return lambda key: re.sub(r"([A-Za-z])\.(\d+)(?=\.)", r"\1\2", key)
    return lambda key: re.sub(r"([A-Za-z])(\d+)(?=\.)", r"\1.\2", key)


def nested(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """A level more under one name."""
    inner = [word for word in words_in(keys) if any(f"{word}." in key for key in keys)]
    if not inner:
        return lambda key: key
    word, level = rng.choice(inner), rng.choice(["body", "inner", "module", "op"])
    pattern = re.compile(rf"(?<![A-Za-z_0-9]){re.escape(word)}\.")
    return lambda key: pattern.sub(f"{word}.{level}.", key)


def flattened(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """One level less: two parts become one with an underscore."""
    inner = sorted(
        {m[0] for key in keys for m in re.finditer(r"[A-Za-z_]+\.[A-Za-z_]+(?=\.)", key)}
    )
    if not inner:
        return lambda key: key
    pair = rng.choice(inner)
    return lambda key: key.replace(pair, pair.replace(".", "_"))


def whole_parts(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Some dotted parts, with their digits, become syllables: `conv1` and `conv2` have no row."""
    parts = dict.fromkeys(p for key in keys for p in key.split(".")[:-1] if not p.isdecimal())
    share = rng.choice([0.2, 0.5, 1.0])
    chosen = {part: _syllables(rng) for part in parts if rng.random() < share}
    return lambda key: ".".join(
        [chosen.get(part, part) for part in key.split(".")[:-1]] + key.split(".")[-1:]
    )


def meaningless_leaves(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Leaves become syllables."""
    return by_word({leaf: _syllables(rng) for leaf in sorted(_LEAVES)})


def worded(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """Glued digits become words: `norm1` and `norm2` are `norm_pre` and `norm_post`."""
    words = rng.choice([("pre", "post"), ("first", "second"), ("a", "b"), ("in", "out")])

    def rename(key: str) -> str:
        return re.sub(r"([a-z])([12])(?=\.)", lambda m: f"{m[1]}_{words[int(m[2]) - 1]}", key)

    return rename


def moved(keys: list[str], rng: random.Random) -> Callable[[str], str]:
    """All under one name goes up a level, or beside its parent."""
    inner = sorted({(p[-3], p[-2]) for key in keys for p in [key.split(".")]
                    if len(p) > 3 and not p[-2].isdecimal()})  # fmt: skip
    if not inner:
        return lambda key: key
    above, below = rng.choice(inner)
    new = below if rng.random() < 0.5 else f"extra.{below}"

    def rename(key: str) -> str:
        parts = key.split(".")
        if parts[-3:-1] != [above, below]:
            return key
        return ".".join([*parts[:-3], *([above] if above.isdecimal() else []), new, parts[-1]])

    return rename


def _syllables(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))


SCHEMES: dict[str, Scheme] = {
    each.__name__: each
    for each in (synonyms, leaf_synonyms, abbreviations, meaningless, wrapper, one_based, glued,
                 nested, flattened, whole_parts, meaningless_leaves, worded, moved)
}  # fmt: skip


def make_pair(model: str, keys: Keys, seed: int) -> Pair:
    """One pair."""
    rng = random.Random(f"{model} {seed}")
    chosen = rng.sample(sorted(SCHEMES), rng.choice([1, 2, 2, 3, 3]))
    names = {key: key for key in keys}
    for scheme in chosen:
        change = SCHEMES[scheme](list(names.values()), rng)
        after = {old: change(new) for old, new in names.items()}
        if len(set(after.values())) == len(after):
            names = after
    order, notes = list(keys), list(chosen)
    if rng.random() < 0.4:
        order = _shuffled(order, rng)
        notes.append("shuffled")
    dropped = []
    if rng.random() < 0.3:
        dropped = [key for key in keys if key.endswith(("num_batches_tracked", "position_index"))]
        notes += ["dropped"] * bool(dropped)
    if rng.random() < 0.3:
        dropped += _cut(list(keys), rng)
        notes.append("cut")
    gone = set(dropped)
    pairs = [[old, names[old], keys[old]] for old in keys if old not in gone]
    pair = {
        "name": f"{model} {seed} {'+'.join(notes)}", "kind": "rename", "ops": [],
        "source": [[key, shape] for key, shape in keys.items()],
        "target": [[names[key], keys[key]] for key in order if key not in gone],
        "pairs": pairs, "dropped": [key for key in keys if key in gone], "added": [],
    }  # fmt: skip
    if rng.random() < 0.3:
        _split(pair, rng)
    return _turned(pair) if rng.random() < 0.3 else pair


def _cut(keys: list[str], rng: random.Random) -> list[str]:
    """Remove from a target: the last module, one leaf of some modules, or any few keys."""
    match rng.choice(["last", "biases", "few"]):
        case "last":
            last = keys[-1].rpartition(".")[0]
            return [key for key in keys if key.startswith(f"{last}.")]
        case "biases":
            modules = sorted({key.split(".")[-2] for key in keys if key.endswith(".bias")})
            return [k for m in modules[:1] for k in keys if k.endswith(f".{m}.bias")]
    return rng.sample(keys, 3)


def _split(pair: Pair, rng: random.Random) -> None:
    """Split what is called qkv or in_proj into three of the target."""
    shapes = {key: shape for key, shape, *_ in pair["source"]}
    names = rng.choice([("q", "k", "v"), ("query", "key", "value"), ("q_proj", "k_proj", "v_proj")])
    for old, new, *_ in list(pair["pairs"]):
        found = re.search(r"(qkv\.|in_proj_)(?=weight|bias)", old)
        module, _, leaf = new.rpartition(".")
        if not found or not module:
            continue
        base = module.rpartition(".")[0] if found[1] == "qkv." else module
        leaf = leaf.removeprefix("in_proj_")
        news = [f"{base}.{name}.{leaf}" for name in names]
        size = shapes[old][0] // 3
        place = next(n for n, (key, *_) in enumerate(pair["target"]) if key == new)
        pair["target"][place : place + 1] = [[n, [size, *shapes[old][1:]]] for n in news]
        pair["pairs"] = [each for each in pair["pairs"] if each[0] != old]
        pair["pairs"] += [[old, name, shapes[old]] for name in news]
        pair["ops"].append({"op": "split", "old": old, "new": news, "dim": 0, "sizes": [size] * 3})
    if pair["ops"]:
        pair["name"] += "+split"


def _turned(pair: Pair) -> Pair:
    """The same the other way round."""
    return {
        **pair, "name": pair["name"] + " turned", "source": pair["target"],
        "target": pair["source"], "dropped": pair["added"], "added": pair["dropped"],
        "pairs": [[new, old, shape] for old, new, shape in pair["pairs"]],
        "ops": [{**each, "op": "concat", "old": each["new"], "new": each["old"]}
                for each in pair["ops"]],
    }  # fmt: skip


def _shuffled(keys: list[str], rng: random.Random) -> list[str]:
    """The modules at one level in another order; what is under one stays together."""
    depth = rng.choice([1, 2, 3, 9])
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        groups[tuple(key.split(".")[:-1][:depth])].append(key)
    names = list(groups)
    rng.shuffle(names)
    return [key for name in names for key in groups[name]]


def main() -> None:
    """Make, infer, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--models", help="names, with commas")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, help="seed; 0, or 1000 of those held out")
    parser.add_argument("--digests", action="store_true")
    parser.add_argument("--rules", action="store_true", help="make the rules as well")
    parser.add_argument("--show", type=int, default=0, help="wrong keys of each pair to show")
    parser.add_argument("-o", "--output", type=Path)
    options = parse_options(parser, models="alexnet,nn.Transformer", seeds=5)
    named = HELD_OUT if options.held_out else LOOKED_AT
    first = options.first if options.first is not None else 1000 if options.held_out else 0
    pairs = [
        make_pair(model, keys, seed)
        for model in (options.models.split(",") if options.models else named)
        for keys in [keys_of(model)]
        for seed in range(first, first + options.seeds)
    ]
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        for number, pair in enumerate(pairs):
            (options.output / f"{number:03}.json").write_text(json.dumps(pair))
        return
    scores = [score(pair, digests=options.digests, rules=options.rules) for pair in pairs]
    _print(scores, options.show)


def _print(scores: list[Score], show: int) -> None:
    print(table(scores))
    for each in scores:
        sure = [wrong for wrong in each.wrong_keys if wrong[-1] != "ambiguous"]
        if show and sure:
            print(f"\n{each.name}: {len(sure)} wrong")
            for wrong in sure[:show]:
                print("  ", *wrong)
    likely = [sum(getattr(s, side)["likely"] for s in scores) for side in ("right", "wrong")]
    print(f"\nof the likely keys {likely[1] / max(1, sum(likely)):.2%} are wrong")


if __name__ == "__main__":
    main()
