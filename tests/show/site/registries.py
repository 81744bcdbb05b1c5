"""Registries whose pages are looked at: an ordinary one, a hostile one, a large one."""

import random
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import ckpt
from ckpt.registry.events import Event
from ckpt.registry.registry import Registry

CURVES = {
    "loss": [2.1, 1.2, 0.8, "nan", 0.5],
    "accuracy": [0.2, 0.5, 0.7, 0.8, 0.9],
    "holdout_loss": [1.5, 0.9, 0.6, 0.5, 0.45],
    "holdout_accuracy": [0.4, 0.7, 0.8, 0.85, 0.9],
}
TRAINING = {"recipe": {"lr": 1.0, "epochs": 5}, "dataset": {"name": "digits"}, "epoch": 5}
# What a page must show as text, in any field.
HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "javascript:window.hit=1",
    '=HYPERLINK("http://x","y")+cmd|\' /C calc\'!A0',
    "</title></script></style>{{7*7}}{% raw %}<svg/onload=window.hit=1>",
    "' onmouseover='window.hit=1' x='",
)


def layers(seed: int, *, prefix: str = "layers", width: int = 4) -> OrderedDict[str, torch.Tensor]:
    """Three equal layers and a head."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"{prefix}.{n}.{part}.weight": (width, 4) for n in range(3) for part in ("q", "k")}
    shapes |= {"head.weight": (2, width), "head.bias": (2,)}
    return OrderedDict((k, torch.randn(s, generator=generator)) for k, s in shapes.items())


def make_ordinary(folder: Path) -> None:
    """`net` with eight versions, one of them removed, and models whose names differ in case."""
    registry = Registry(_made(folder))
    record = {"training": TRAINING, "curves": CURVES}

    def register(state: dict[str, Any], name: str = "net", **options: Any) -> None:
        torch.save(state, folder / "it.pt")
        ckpt.register(folder / "it.pt", name=name, registry=registry, **options)

    first = layers(1)
    scores = {"accuracy": 0.9, "loss": 0.5}
    register(first, metrics=scores, message="first try", record=record)  # v1
    ckpt.rename("net:v1", ["layers->blocks"], registry=registry)  # v2
    register({**first, "head.bias": torch.ones(2)}, metrics={"accuracy": 0.95})  # v3
    swapped = {"layers.0.q.weight": "layers.0.k.weight", "layers.0.k.weight": "layers.0.q.weight"}
    register({key: first[swapped.get(key, key)] for key in first})  # v4
    register({**layers(2, width=6), "extra": torch.zeros(3)})  # v5
    half = {key: tensor.half() if "q" in key else tensor for key, tensor in first.items()}
    register({**half, "tied.weight": half["head.weight"], "layers._extra_state": {"n": 1}})  # v6
    register(layers(3))  # v7
    register(layers(4), message="the last one", metrics={"accuracy": 0.97, "f1": 0.5})  # v8
    ckpt.rename("net:v8", ["head->top"], registry=registry)  # v9
    for name in ("Net", "other"):
        register(layers(5), name)
    ckpt.rm(["net:v7"], registry=registry)
    ckpt.alias("net@prod", "net:v1", message="to start with", registry=registry)
    ckpt.alias("net@prod", "net:v3", message="better", registry=registry)
    ckpt.tag("net:v1", ["golden"], registry=registry)
    ckpt.note("net:v3", "confuses 3 and 8", registry=registry)


def make_random(folder: Path, seed: int, count: int) -> None:
    """`net` with versions whose few keys share names, values, shapes and dtypes by chance."""
    registry, draw = Registry(_made(folder)), random.Random(seed)
    for number in range(count):
        keys = [f"{a}.{b}" for a in "abc" for b in ("weight", "bias", "x")] + ["weight", "bias"]
        state: dict[str, Any] = {"number": torch.tensor(number)}
        for key in draw.sample(keys, draw.randint(2, len(keys))):
            value = torch.full(draw.choice([(2,), (1, 2)]), float(draw.randint(0, 2)))
            state[key] = value.to(draw.choice([torch.float32, torch.float16]))
        for key in draw.sample(keys, 2):
            state[key] = draw.choice([*state.values()])  # tied
        if draw.random() < 0.4:
            state["a._extra_state"] = draw.choice([1, "x", {"y": 2}])
        torch.save(state, folder / "it.pt")
        ckpt.register(
            folder / "it.pt",
            name="net",
            registry=registry,
            metrics={"accuracy": number / 10},
            record={
                "training": {"lr": draw.choice([1, 0.1]), "more": draw.choice([[1], {"z": 2}])}
            },
        )


def make_hostile(folder: Path) -> None:
    """Hostile texts in every field that may hold any text, by the real commands."""
    registry = Registry(_made(folder))
    for number in (1, 2):
        text, ref = " ".join(HOSTILE[::number]), f"net:v{number}"
        nested = {each: {each: text} for each in HOSTILE}
        state = {f"{each}.{number}": torch.full((2,), float(number)) for each in HOSTILE}
        more = {"note": text, "list": [text], **nested}
        torch.save({"model": {**state, "same": torch.ones(2)}, "more": more}, folder / "it.pt")
        (folder / "note.txt").write_text(text)
        ckpt.register(
            f"{folder / 'it.pt'}::model",
            name="net",
            registry=registry,
            message=text,
            metrics=dict.fromkeys(HOSTILE, number + 0.5),
            record={
                "training": {"recipe": nested, "dataset": {"name": text}},
                "curves": {**CURVES, text: [1.0] * 5},
                "fits": text,
                text: text,
            },
            with_files=[folder / "note.txt"],
        )
        ckpt.note(ref, text, registry=registry)
        ckpt.metric(ref, {text: 2.5}, message=text, registry=registry)
        ckpt.alias("net@prod", ref, message=text, registry=registry)
    ckpt.rename("net:v1", ["same->" + HOSTILE[0]], registry=registry)
    _forge(registry, [*HOSTILE])


def _forge(registry: Registry, evil: list[str]) -> None:
    """Where commands choose the text themselves: who wrote, how a version was made, when."""

    def changed(index: Any) -> Any:
        model = index.model("net")
        versions = {
            number: replace(version, made_by=evil[number % len(evil)], renumbered=evil[1])
            for number, version in model.versions.items()
        }
        by = {"author": evil[1], "host": evil[0], "commit": evil[2]}
        log = tuple(replace(event, by=by) for event in model.log)
        log += (Event(did=evil[1], at=log[-1].at, by=by, manifest=log[-1].manifest, text=evil[0]),)
        return replace(model, versions=versions, log=log)

    registry.change(changed, lambda: evil[0])


def make_many(folder: Path, count: int) -> None:
    """`net` with many versions: lines of the index over one manifest."""
    registry = Registry(_made(folder))
    torch.save(layers(1), folder / "it.pt")
    ckpt.register(
        folder / "it.pt",
        name="net",
        registry=registry,
        message="a message of a usual length, as people write it",
        metrics={"accuracy": 0.5, "loss": 1.25},
    )

    def changed(index: Any) -> Any:
        model = index.model("net")
        first = model.versions[1]
        versions = {n: replace(first, number=n, size=n * 1000) for n in range(1, count + 1)}
        return replace(model, versions=versions, next_number=count + 1, aliases={"prod": count})

    registry.change(changed, lambda: "many")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
