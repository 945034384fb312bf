"""GGUF files -> what hf_import reads: a config.json made of the metadata, and tensors under Hugging Face's names.

To add an architecture: its llama.cpp name in `ARCHITECTURES`, the keys of its own in `_special`, and where its tensors
are called otherwise, names in `_names`. A key of the architecture that nobody read and that may change the maths is
refused by its name, as in config.json.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftjax import lookup
from ftjax.checkpoint import folders
from ftjax.data import cache, files, gguf_file, tokenizer
from ftjax.errors import UserError, some
from ftjax.models import config as model_config
from ftjax.models.families import _hf

ARCHITECTURES = {  # general.architecture -> model_type, class in transformers
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma2": ("gemma2", "Gemma2ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
_HARMLESS = ("tensor_data_layout", "attention.causal", "rope.scaling.finetuned")
_FREQUENCIES = "rope_freqs.weight"
_SCALARS = 1 << 20  # dequantised at a time: the package needs a multiple of that
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class Entry(NamedTuple):
    """A tensor in a file under its own name, and what makes it Hugging Face's."""

    file: Path
    name: str
    shape: tuple[int, ...]
    tensor: gguf_file.Tensor
    heads: int  # whose rows are rotary pairs side by side; 0: none
    minus: float  # what the file has added to a norm


def read_config(path: Path) -> model_config.ModelConfig:
    """Returns the config of a file without reading its weights."""
    hf = hf_config(gguf_file.read(path))
    try:
        return _hf.family(hf["model_type"]).config_from_hf(hf)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def hf_config(file: gguf_file.File) -> dict[str, Any]:
    """Returns the config.json that a file describes; what is missing or not implemented is a UserError."""
    keys = _Keys(file)
    kind, name = ARCHITECTURES[keys.architecture]
    names = file.tensors
    heads, width = keys.whole("attention.head_count"), keys.whole("embedding_length")
    head_dim = keys.whole("attention.key_length", keys.get("rope.dimension_count") or width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.get(key) not in (None, head_dim):
            raise keys.refusal(key, f"heads of {head_dim} numbers")
    rows = _rows(file, keys.get("vocab_size"))
    special = {n: file.metadata.get(f"tokenizer.ggml.{k}_token_id") for n, k in (("bos", "bos"), ("eos", "eos"))}
    config = {
        "architectures": [name],
        "model_type": kind,
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": keys.whole("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", None if keys.architecture == "gemma3" else 10_000.0),
        "rope_scaling": _scaling(keys, head_dim),
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": special["bos"],
        "eos_token_id": special["eos"],
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }
    config |= _special(keys, config)
    keys.finish()
    return {key: value for key, value in config.items() if value is not None}


class _Keys:
    """The metadata of an architecture being read; `finish` refuses what nobody asked about and may matter."""

    def __init__(self, file: gguf_file.File):
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            known = lookup.suggestion(self.architecture, list(ARCHITECTURES))
            raise UserError(f"{file.path}: general.architecture={self.architecture!r} is not implemented.{known}")
        self._read: set[str] = set(_HARMLESS)

    def get(self, key: str) -> Any:
        """Returns the value of a key of the architecture, None where it is absent."""
        self._read.add(key)
        return self.file.metadata.get(f"{self.architecture}.{key}")

    def whole(self, key: str, default: int | None = None) -> int:
        """Returns a whole number >= 1, the same for all layers; without a default the key must be there."""
        value = self.get(key)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refusal(key, "a whole number >= 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number > 0; without a default the key must be there."""
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self.refusal(key, "a number > 0")
        return float(value)

    def refusal(self, key: str, known: str) -> UserError:
        """Returns the error of a key whose value is missing or not implemented."""
        name = f"{self.architecture}.{key}"
        if name not in self.file.metadata:
            return UserError(f"{self.file.path}: key {name!r} is missing; it should be {known}")
        return UserError(f"{self.file.path}: {name}={self.file.metadata[name]!r} is not implemented; known: {known}")

    def finish(self) -> None:
        """Refuses every unread key of the architecture that is not null, false, 0 or 1."""
        for name, value in self.file.metadata.items():
            architecture, _, key = name.partition(".")
            neutral = not value or (value == 1 and value is not True)
            if architecture == self.architecture and key not in self._read and not neutral:
                raise UserError(f"{self.file.path}: {name}={value!r} is not implemented; refused, not ignored")


def _rows(file: gguf_file.File, vocab_size: int | None) -> int:
    """Returns the rows of the embedding, which must be enough for the tokenizer."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise UserError(f"{file.path}: tensors are missing: token_embd.weight; is it a whole model?")
    rows = embedding.shape[0]
    if vocab_size is not None and vocab_size != rows:
        raise UserError(
            f"{file.path}: vocab_size={vocab_size}, but token_embd.weight has {rows} rows; the file is broken"
        )
    count = len(file.metadata.get("tokenizer.ggml.tokens") or ())
    if count > rows:
        raise UserError(
            f"{file.path}: the tokenizer has {count} tokens, but token_embd.weight has {rows} rows; use the tokenizer "
            "of this model, or a model with a larger embedding"
        )
    return rows


def _scaling(keys: _Keys, head_dim: int) -> dict[str, Any] | None:
    """Returns rope_scaling: from the metadata, or from the factors that Llama 3 files hold as a tensor."""
    kind, factor = keys.get("rope.scaling.type"), keys.get("rope.scaling.factor")
    original, older = keys.get("rope.scaling.original_context_length"), keys.get("rope.scale_linear")
    if _FREQUENCIES in keys.file.tensors:
        if kind not in (None, "none"):
            raise keys.refusal("rope.scaling.type", f"none beside {_FREQUENCIES}")
        return _llama3(keys, head_dim)
    if kind in (None, "none"):
        factor, kind = older, "linear"
    elif kind not in ("linear", "yarn"):
        raise keys.refusal("rope.scaling.type", "none, linear, yarn")
    if factor in (None, 0, 1):
        return None
    if keys.get("rope.scaling.attn_factor") not in (None, 1):
        raise keys.refusal("rope.scaling.attn_factor", "1")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": float(factor)}
    if kind == "yarn" and original:
        scaling["original_max_position_embeddings"] = int(original)
    return scaling


def _llama3(keys: _Keys, head_dim: int) -> dict[str, Any]:
    """Returns Llama 3's scaling: the file has only the divisors of the frequencies, which must be those of its rule."""
    stored = read(_plain(keys.file.tensors[_FREQUENCIES]))
    theta = keys.number("rope.freq_base", 10_000.0)
    factor = float(stored.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high, length = _LLAMA3.values()
    smooth = np.clip((length / wavelengths - low) / (high - low), 0, 1)
    divisors = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != divisors.shape or not np.allclose(stored, divisors, rtol=1e-4, atol=0):
        raise UserError(
            f"{keys.file.path}: {_FREQUENCIES} is not what Llama 3's rule with {_LLAMA3} gives, and the file does not "
            "say which rule it is; use the model's Hugging Face folder"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _special(keys: _Keys, config: dict[str, Any]) -> dict[str, Any]:
    """Returns what a family's config.json has beside the common keys."""
    names, architecture = keys.file.tensors, keys.architecture
    if architecture == "llama":
        window = keys.get("attention.sliding_window")
        biases = {"attention_bias": "blk.0.attn_q.bias" in names, "mlp_bias": "blk.0.ffn_gate.bias" in names}
        if not window:
            return {"hidden_act": "silu", **biases}
        mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}
        return {"hidden_act": "silu", **mistral}
    if architecture in ("qwen2", "qwen3"):
        own = {"attention_bias": "blk.0.attn_q.bias" in names} if architecture == "qwen3" else {}
        return {"hidden_act": "silu", "use_sliding_window": False, **own}
    layers, heads, head_dim = (config[key] for key in ("num_hidden_layers", "num_attention_heads", "head_dim"))
    by_width = layers == (46 if architecture == "gemma2" else 62)  # the 27B models alone; llama.cpp decides so too
    gemma = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config["hidden_size"] // heads if by_width else head_dim,
        "sliding_window": keys.whole("attention.sliding_window", 4096 if architecture == "gemma2" else None),
        "final_logit_softcapping": keys.get("final_logit_softcapping"),
        "attn_logit_softcapping": keys.get("attn_logit_softcapping"),
    }
    pattern = keys.get("attention.sliding_window_pattern")
    usual = 2 if architecture == "gemma2" else 6
    every = [(layer + 1) % usual != 0 for layer in range(layers)]
    if pattern not in (None, usual, every):
        raise keys.refusal("attention.sliding_window_pattern", f"every layer but each {usual}th")
    gemma["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in every]
    if architecture == "gemma3":
        gemma["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 10_000.0)
    return gemma


def _names(config: model_config.ModelConfig, architecture: str) -> dict[str, str]:
    """Returns the file's name of each tensor of a model, by Hugging Face's."""
    inside = {f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"}
    inside |= {"self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
    inside |= {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}
    inside |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    if architecture.startswith("gemma"):  # norms before and after each half
        inside |= {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"}
        inside |= {"post_feedforward_layernorm": "post_ffw_norm"}
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    found = {}
    for name in _hf.family(config.family).names_from_hf(config):
        module, _, kind = name.rpartition(".")
        if module.startswith("model.layers."):
            layer, _, part = module.removeprefix("model.layers.").partition(".")
            found[name] = f"blk.{layer}.{inside[part]}.{kind}"
        else:
            found[name] = f"{outside[module]}.{kind}"
    return found


def entries(path: Path, config: model_config.ModelConfig) -> dict[str, Entry]:
    """Returns every tensor by its Hugging Face name.

    One that is missing, left over or of a type that the package cannot dequantise is a UserError that names it.
    """
    file = gguf_file.read(path)
    architecture = file.metadata["general.architecture"]
    names = _names(config, architecture)
    missing = [name for name in names.values() if name not in file.tensors]
    if missing:
        raise UserError(f"{file.path}: tensors are missing: {some(missing, 5)}; is it a whole model?")
    extra = sorted(set(file.tensors) - set(names.values()) - {_FREQUENCIES})
    if extra:
        raise UserError(f"{file.path}: a {config.family} model of this config has no place for {some(extra, 5)}")
    _check_kinds(file)
    found = {}
    for name, own in names.items():
        tensor = file.tensors[own]
        letter = own.split(".")[-2][-1] if ".attn_q." in own or ".attn_k." in own else ""
        heads = {"q": config.n_heads, "k": config.n_kv_heads}.get(letter, 0) if architecture == "llama" else 0
        minus = 1.0 if architecture.startswith("gemma") and own.endswith("norm.weight") else 0.0
        found[name] = Entry(file.path, own, tensor.shape, tensor, heads, minus)
    return found


def _check_kinds(file: gguf_file.File) -> None:
    """Refuses types of tensors that the package cannot dequantise, by trying each on one row of zeros."""
    gguf = gguf_file.library()
    for kind, name in {tensor.kind: tensor.name for tensor in file.tensors.values()}.items():
        number = gguf.GGMLQuantizationType[kind]
        try:
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[number][1]), np.uint8), number)
        except NotImplementedError:
            raise UserError(
                f"{file.path}: {name} is stored as {kind}, which the package gguf cannot dequantise; convert the file "
                "to Q8_0 or F16"
            ) from None


def read(entry: Entry) -> np.ndarray:
    """Returns one tensor in float32 as Hugging Face holds it: rows of q and k as halves, norms as they are trained.

    llama.cpp turns neighbouring rows, Hugging Face turns row i with row i + head_dim / 2; its converter permutes the
    rows of each head, w.reshape(heads, 2, head_dim / 2, in).swapaxes(1, 2), and this undoes it.
    """
    gguf = gguf_file.library()
    tensor = entry.tensor
    kind = gguf.GGMLQuantizationType[tensor.kind]
    with entry.file.open("rb") as stream:
        raw = np.fromfile(stream, np.uint8, tensor.nbytes, offset=tensor.begin)
    raw = raw.reshape(math.prod(tensor.shape[:-1]), -1)
    rows = np.empty((len(raw), tensor.shape[-1]), np.float32)
    height = max(1, _SCALARS // tensor.shape[-1])
    for first in range(0, len(raw), height):
        rows[first : first + height] = gguf.quants.dequantize(raw[first : first + height], kind)
    values = rows.reshape(tensor.shape)
    if entry.heads:
        inner = values.shape[0] // entry.heads // 2
        values = values.reshape(entry.heads, inner, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return values - np.float32(entry.minus) if entry.minus else values


def _plain(tensor: gguf_file.Tensor) -> Entry:
    return Entry(tensor.file, tensor.name, tensor.shape, tensor, 0, 0.0)


def content_hash(path: Path) -> str:
    """Returns the sha256 that stands for a file."""
    return files.digest(path)


def folder_of(model: str | Path) -> Path:
    """Returns the folder with what a Hugging Face folder has beside the weights: the model's own, or a GGUF file's.

    For a GGUF file it is made of the metadata, once, in the cache folder: config.json, generation_config.json, the
    tokenizer and its chat template.
    """
    path = gguf_file.find(model)
    if path is None:
        return Path(model).expanduser()
    file = gguf_file.read(path)
    config, tok = hf_config(file), tokenizer.load(path)
    ends = {
        "bos_token_id": tok.bos_id,
        "eos_token_id": list(tok.stop_ids) if len(tok.stop_ids) > 1 else tok.eos_id,
        "pad_token_id": tok.pad_id,
    }
    texts = {"config.json": config, "generation_config.json": {k: v for k, v in ends.items() if v not in (None, [])}}
    key = hashlib.sha256(json.dumps([texts, tok.fingerprint]).encode()).hexdigest()
    folder = cache.root() / "gguf" / key[:16]
    if not folder.is_dir():
        with folders.written(folder) as beside:
            for name, value in texts.items():
                (beside / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
            tok.save(beside)
    return folder
