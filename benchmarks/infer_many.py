"""What an inference of many keys costs, rules included: CPU seconds and peak memory.

    python benchmarks/infer_many.py [--keys 1000,10000,100000] [--quick]

The keys are those of a Llama: in the names of transformers, and in others. Each size runs in a
process of its own; its memory includes Python, ckpt and the keys of both sides.
"""

import argparse
from time import process_time
from typing import Any

from apart import apart
from quick import parse_options
from tabulate import tabulate

from ckpt.infer.find_rules import infer_rules
from ckpt.infer.rules.synthesis import count_rules
from ckpt.tensors import TensorEntry

PARTS = [
    ("self_attn.q_proj", "attention.query", (64, 64)),
    ("self_attn.k_proj", "attention.key", (16, 64)),
    ("self_attn.v_proj", "attention.value", (16, 64)),
    ("self_attn.o_proj", "attention.output", (64, 64)),
    ("mlp.gate_proj", "feed_forward.w1", (172, 64)),
    ("mlp.up_proj", "feed_forward.w3", (172, 64)),
    ("mlp.down_proj", "feed_forward.w2", (64, 172)),
    ("input_layernorm", "attention_norm", (64,)),
    ("post_attention_layernorm", "ffn_norm", (64,)),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", default="1000,10000,100000")
    options = parse_options(parser, keys="1000")
    rows = []
    for keys in map(int, options.keys.split(",")):
        cost = apart(measure, -(-keys // len(PARTS)))
        rows.append(
            [f"{cost['keys']:,}", cost["rules"], f"{cost['seconds']:.1f}", f"{cost['peak_mb']:.0f}"]
        )
    print(tabulate(rows, ["keys", "rules", "CPU s", "peak MB"], disable_numparse=True))


def measure(layers: int) -> dict[str, Any]:
    """Infer the mapping of so many layers, and its rules."""
    source, target = (
        [
            TensorEntry(f"{start}layers.{layer}.{part[side]}.weight", "float32", part[2])
            for layer in range(layers)
            for part in PARTS
        ]
        for side, start in enumerate(("model.", ""))
    )
    begin = process_time()
    found, rules = infer_rules(source, target)
    seconds = process_time() - begin
    pairs = [(match.source, match.target) for match in found.matches]
    assert found.settled
    assert pairs == [(old.key, new.key) for old, new in zip(source, target, strict=True)]
    return {"keys": len(source), "rules": count_rules(rules), "seconds": seconds}


if __name__ == "__main__":
    main()
