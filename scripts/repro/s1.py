"""S1, the small byte-level model that E1 and E4 to E6 are stated for: two corpora, found on every machine, and a base.

Corpus A is the standard library's source, corpus B its help topics and the licences in /usr/share/common-licenses. The
base is trained on A by configs/repro/s1_base.py; what is tried on it adapts it to B.
"""

import hashlib
import json
from pathlib import Path
import random
import sysconfig
from typing import Any

LENGTH = 64  # tokens of a row: 63 characters and the end
BLOCK = 4096  # characters; every 20th block of a corpus is held out whole
SIZES = {"a": (40_000, 512), "b": (100_000, 512)}  # rows at most, for training and held out
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "max_position_embeddings": LENGTH,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "dtype": "float32",
}


def write(folder: Path) -> dict[str, Any]:
    """Writes the corpora and the random model, and returns what they are; a folder that has them is left."""
    card = folder / "corpora.json"
    if card.exists():
        return json.loads(card.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, text in {"a": source_code(), "b": prose()}.items():
        whole = text.encode("ascii", "ignore").decode()
        facts[name] = {"bytes": len(whole), "sha256": hashlib.sha256(whole.encode()).hexdigest()}
        for part, rows in zip(("train", "heldout"), split(whole, *SIZES[name]), strict=True):
            lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
            (folder / f"{name}_{part}.jsonl").write_text(lines)
            facts[name][part] = len(rows)
    write_random(folder / "random")
    card.write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def source_code() -> str:
    """Returns the standard library's own source, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "pydoc_data"}
    files = [path for path in sorted(root.rglob("*.py")) if not skipped & set(path.relative_to(root).parts)]
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)


def prose() -> str:
    """Returns the help topics of Python and the licences that a Debian machine keeps."""
    from pydoc_data import topics

    licences = {path.resolve() for path in Path("/usr/share/common-licenses").glob("*")}
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(licences)]
    return "\n".join([*(topics.topics[name] for name in sorted(topics.topics)), *texts])


def split(text: str, train: int, heldout: int) -> tuple[list[str], list[str]]:
    """Returns rows of LENGTH - 1 characters to train on and held out, in random order, from different blocks."""
    rows: tuple[list[str], list[str]] = ([], [])
    for start in range(0, len(text) - BLOCK, BLOCK):
        block = text[start : start + BLOCK]
        held = start // BLOCK % 20 == 0
        rows[held].extend(block[i : i + LENGTH - 1] for i in range(0, BLOCK - LENGTH, LENGTH - 1))
    kept = [row for row in rows[0] if row.strip()], [row for row in rows[1] if row.strip()]
    for found in kept:
        random.Random(0).shuffle(found)
    return kept[0][:train], kept[1][:heldout]


def write_random(folder: Path) -> None:
    """Writes the untrained model with its tokenizer: one token a byte below 128; byte 0 is the end."""
    import jax
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    import transformers

    from ftjax.checkpoint import hf_export, hf_import
    from ftjax.models import params

    plain = folder.with_name(f"{folder.name}-config")
    plain.mkdir(parents=True, exist_ok=True)
    signs = bytes_to_signs()
    core = tokenizers.Tokenizer(models.BPE({"<|end|>": 0} | {signs[i]: i for i in range(1, 128)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|end|>"])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>", model_max_length=LENGTH
    )
    made.save_pretrained(plain)
    (plain / "config.json").write_text(json.dumps(SHAPE))
    (plain / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 0}))
    config = hf_import.read_config(plain)
    hf_export.save(folder, params.init(jax.random.key(0), config, "float32"), config, plain)


def bytes_to_signs() -> dict[int, str]:
    """Returns the sign that byte-level BPE writes for each byte: printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    return {value: chr(value) for value in printable} | {value: chr(256 + i) for i, value in enumerate(others)}
