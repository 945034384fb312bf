"""A tiny base as Hugging Face lays one out, and rows for it: what whole commands run on in a second."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("red", "green", "blue", "lamp", "rope", "boat", "bread", "tree")
SHAPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


def script(name: str) -> ModuleType:
    """Returns the module of a file in scripts/, which nothing imports."""
    found = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "scripts" / name)
    assert found is not None
    assert found.loader is not None
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


def rows(count: int) -> list[dict]:
    """Returns chats that ask for a word and get it, all different."""
    pairs = [(first, second) for first in WORDS for second in WORDS]
    text = lambda number: " ".join((*pairs[number % len(pairs)], *pairs[number // len(pairs)][:1]))
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {text(number)}."},
                {"role": "assistant", "content": f"{text(number)}!"},
            ]
        }
        for number in range(count)
    ]


def pairs(count: int) -> list[dict]:
    """Returns preferences for an answer in the order of the question, all different, of unequal lengths."""
    return [
        {"prompt": row["messages"][0]["content"], "chosen": said, "rejected": " ".join(reversed(said[:-1].split()))}
        for row in rows(count)
        for said in [row["messages"][1]["content"]]
    ]


def write_rows(path: Path, found: list[dict]) -> Path:
    """Writes rows as JSONL and returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def write_base(
    folder: Path,
    *,
    template: str | None = TEMPLATE,
    seed: int = 0,
    extra_tokens: int = 0,
    shape: dict[str, Any] | None = None,
) -> Path:
    """Writes a random Llama with a byte-level tokenizer and returns its folder.

    `extra_tokens` adds tokens to the tokenizer that the embedding has no rows for; `shape` changes what is in `SHAPE`.
    """
    folder.mkdir(parents=True)
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([m["content"] for row in rows(64) for m in row["messages"]], trainer)
    shape = {**SHAPE, **(shape or {}), "vocab_size": core.get_vocab_size(), "dtype": "float32"}
    shape |= {"eos_token_id": 2, "pad_token_id": 0}
    core.add_tokens([f"<more{number}>" for number in range(extra_tokens)])
    core.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    safetensors_numpy.save_file(_weights(shape, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(shape: dict, seed: int) -> dict[str, np.ndarray]:
    width, wide, heads = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    queries, keys = heads * shape["num_attention_heads"], heads * shape["num_key_value_heads"]
    layer = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (wide, width),
        "mlp.up_proj": (wide, width),
        "mlp.down_proj": (width, wide),
    }
    sizes = {"model.embed_tokens": (shape["vocab_size"], width), "model.norm": (width,)}
    for number in range(shape["num_hidden_layers"]):
        sizes |= {f"model.layers.{number}.{name}": size for name, size in layer.items()}
    rng = np.random.default_rng(seed)
    random = lambda size: rng.normal(0, size[-1] ** -0.5, size) if len(size) > 1 else np.ones(size)
    return {f"{name}.weight": random(size).astype(np.float32) for name, size in sizes.items()}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base; not to be written to."""
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 60 chats for the tiny base; not to be written to."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows(60))


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 40 preferences for the tiny base; not to be written to."""
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", pairs(40))


def preferences(kind: str, base: Path, data: Path, **changes: Any) -> Any:
    """Returns the config of a small run on preferences: "dpo", "kto" or "reward", with `reference__kind="start"`."""
    from ftjax import config as configs

    flat = {name.replace("__", "."): value for name, value in changes.items()}
    own = {"data.paths": (str(data),), "eval.path": "", "eval.check": "", "data.batch_size": 8}
    if kind == "dpo":
        own |= {"eval.kl_prompts": 0}
    config = configs.load(f"{ROOT}/configs/smoke/{kind}.py:model={base}")
    return configs.override(config, SMALL | own | flat)


class Recorder(dict):
    """A config as nested dicts that notes which keys are asked for; going through it, to print or save it, is not."""

    def __init__(self, data: dict, asked: set[str], prefix: str = "") -> None:
        inside = lambda key, value: Recorder(value, asked, f"{prefix}{key}.") if isinstance(value, dict) else value
        super().__init__({key: inside(key, value) for key, value in data.items()})
        self._asked, self._prefix = asked, prefix

    def __getitem__(self, key: str) -> object:
        self._asked.add(f"{self._prefix}{key}")
        return super().__getitem__(key)

    def __iter__(self):  # overridden so that dict(section) and f(**section) ask for every key
        return super().__iter__()


class Finished(NamedTuple):
    """A run that was trained to its end in this process."""

    folder: Path
    asked: set[str]  # keys of its config that were asked for
    summary: dict


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_rows: Path) -> Finished:
    """A finished run of the tiny base on 8 devices; its folder is not to be written to."""
    from ftjax import config as configs
    from ftjax import experiment, run
    from ftjax.runs import folder as folders

    spec = f"{ROOT}/configs/sft/jsonl.py:data={tiny_rows},model={tiny_base},steps=4,exact=true,retention={tiny_rows}"
    config = configs.load(spec)
    configs.override(config, SMALL)
    asked: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "plain", lambda config: Recorder(config.to_dict(), asked))
        built = experiment.build(config)
        folder = folders.create(
            tmp_path_factory.mktemp("runs") / "finished",
            name="finished",
            config=built.config,
            command=["python", "scripts/train.py"],
            resume=False,
            may_change=(),
        )
        summary = run.train(built, folder, lambda _: None)
        folder.release()
    return Finished(folder.path, asked, summary)


SMALL = {
    "data.max_length": 64,
    "eval.every": 2,
    "eval.max_new_tokens": 8,
    "checkpoint.every": 2,
    "log.writers": ("jsonl",),
    "optimizer.learning_rate": 1e-2,
}  # what makes a run of the tiny base take a second


def logits_of(config, base, adapters) -> np.ndarray:
    """Returns the logits of a base, with adapters or without, for fixed tokens."""
    from ftjax.adapters import attach
    from ftjax.models import decoder

    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (2, 24)).astype(np.int32)
    return np.asarray(decoder.logits(attach.attach(base, adapters), tokens, config))
