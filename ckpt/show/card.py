"""Model cards: Markdown that begins with the YAML that hubs read.

Laws: the YAML parses to the texts and numbers of the record, whatever is in them, but for
characters without ink, which are escaped; no text of a record acts as markup.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpt.compare.leaves import leaves
from ckpt.errors import excerpt
from ckpt.ops.card import Card
from ckpt.show.look.by import by_text
from ckpt.show.look.fields import fields
from ckpt.show.look.markdown import markdown_table, marked
from ckpt.show.look.tables import Table
from ckpt.show.look.words import metric, metrics, printable
from ckpt.show.show import totals

_LONGEST = 500  # characters of a value of the training


def card_text(card: Card) -> str:
    """The card."""
    front = "\n".join(["---", *_front(card), "---"])
    return "\n\n".join([front, *_body(card)]) + "\n"


def card_data(card: Card) -> dict[str, Any]:
    """The same for JSON."""
    return {**fields(card, "version=shown.name", "license", "task"), "text": card_text(card)}


def _front(card: Card) -> Iterator[str]:
    """Source: Hugging Face, "Model Cards", the fields of `huggingface_hub.ModelCardData`."""
    if card.license:
        yield f"license: {_yaml(card.license)}"
    yield "library_name: pytorch"
    if card.shown.tags:
        yield f"tags: {_yaml(list(card.shown.tags))}"
    scores = card.shown.measured.metrics if card.shown.measured else {}
    if not scores:
        return
    yield f"metrics: {_yaml(list(scores))}"
    yield "model-index:"
    yield f"- name: {_yaml(card.shown.name)}"
    yield "  results:"
    yield f"  - task:\n      type: {_yaml(card.task)}"
    dataset = _yaml(_dataset(card) or "not recorded")
    yield f"    dataset:\n      name: {dataset}\n      type: {dataset}"
    yield "    metrics:"
    for name, value in scores.items():
        yield f"    - type: {_yaml(name)}\n      name: {_yaml(name)}\n      value: {_yaml(value)}"


def _yaml(value: str | float | Sequence[str]) -> str:
    """A value as YAML, whose flow style takes JSON (YAML 1.2, 1.3).

    A float has a dot, without which readers of YAML 1.1 take ``1e-05`` for a text.
    """
    if isinstance(value, float) and math.isfinite(value):
        mantissa, mark, exponent = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{mark}{exponent}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return json.dumps(printable(value) if isinstance(value, str) else value, ensure_ascii=False)


def _dataset(card: Card) -> str:
    dataset = card.training.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else None
    return name if isinstance(name, str) else ""


def _body(card: Card) -> Iterator[str]:
    shown, version = card.shown, card.shown.version
    assert version is not None  # `card` takes nothing else
    yield f"# {marked(shown.name)}"
    if version.message:
        yield marked(version.message)
    author = by_text((shown.record or {}).get("by"))
    made = [version.made_by, version.created[:10], f"by {author}" if author else ""]
    yield marked(", ".join(filter(None, made)))
    yield marked(" · ".join([str(shown.format), *totals(shown)]))
    if measured := shown.measured:
        yield "## Metrics"
        rows = [[name, metric(name, value)] for name, value in measured.metrics.items()]
        yield markdown_table(Table(["metric", "value"], rows, right=["value"]), rows)
        if not version.metrics:
            yield marked(f"Measured on {measured.ref}, from which this version was made.")
    yield "## Use"
    yield (
        f"```python\nimport ckpt\n\nstate = ckpt.load({shown.name!r})\n```\n\n"
        f"`pip install ckpt-registry`; the version has the digest `{version.manifest}`."
    )
    yield from _training(card)
    yield "## Lineage"
    yield "\n".join(map(_step, card.lineage))


def _training(card: Card) -> Iterator[str]:
    if not card.training:
        return
    yield "## Training"
    if card.trained != card.shown.name:
        yield marked(f"Of {card.trained}, from which this version was made.")
    rows = [[name, _value(value)] for name, value in leaves(card.training)
            if value not in (None, [], "")]  # fmt: skip
    yield markdown_table(Table(["setting", "value"], rows), rows)


def _value(value: object) -> str:
    return excerpt(value if isinstance(value, str) else json.dumps(value), _LONGEST)


def _step(step: Any) -> str:
    version = step.version
    words = [step.kind, version.made_by, metrics(version.metrics), version.message]
    return f"- {marked(version.ref)}: {', '.join(map(marked, filter(None, words)))}"
