"""What the families share: reading config.json key by key, rotary settings, window patterns, the usual tensor names."""

import importlib
import re
from types import ModuleType
from typing import Any, NamedTuple

from ftjax import lookup
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models import families


class Place(NamedTuple):
    """Where a tensor of a checkpoint lives: path of the leaf, row in it (None: the whole leaf), stored transposed."""

    path: str
    layer: int | None
    transpose: bool


# Keys that say nothing about the function: bookkeeping, generation, training noise, speed.
# fmt: off
_HARMLESS = frozenset((
    "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled", "_name_or_path",
    "architectures", "attention_dropout", "attn_implementation", "attn_pdrop", "auto_map", "bos_token_id", "dtype",
    "embd_pdrop", "eos_token_id", "hidden_dropout", "initializer_range", "keys_to_ignore_at_inference",
    "max_window_layers", "model_max_length", "model_type", "name_or_path", "output_attentions",
    "output_hidden_states", "pad_token_id", "pretraining_tp", "resid_pdrop", "sep_token_id", "task_specific_params",
    "tokenizer_class", "torch_dtype", "transformers_version", "unk_token_id", "use_cache", "use_flash_attention",
    "use_flash_attn",
))
# fmt: on
# An unread key with a word like these may change the maths: better refused than run in silence.
_MATHS = re.compile(
    r"rope|rotary|posi|attn|attention|head|norm|eps|scal|multipl|softcap|logit|expert|moe|window|clip|bias|layer|"
    r"residual|parallel|act|gate|mlp|quant|sparse|share|embed|altup|alibi|latent|lora|conv|ssm|chunk|sink|hidden|factor"
)


class Keys:
    """A config.json being read; `finish` refuses what nobody asked about and may matter."""

    def __init__(self, hf: dict[str, Any]):
        self._hf = hf
        self._read: set[str] = set()

    def get(self, key: str, default: Any) -> Any:
        """Returns the value of a key; where it is absent or null, the default (transformers' own for this family)."""
        self._read.add(key)
        value = self._hf.get(key)
        return default if value is None else value

    def size(self, key: str, default: int | None = None) -> int:
        """Returns a whole number >= 1; without a default the key must be there."""
        value = self.get(key, default)
        if value is None:
            raise UserError(f"key {key!r} is missing; a config of a {self._hf.get('model_type')} model must have it")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{key}={value!r} is not a whole number >= 1")
        return value

    def number(self, key: str, default: float) -> float:
        """Returns a number > 0."""
        return positive(key, self.get(key, default))

    def flag(self, key: str, default: bool) -> bool:
        """Returns a bool."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{key}={value!r} is neither true nor false")
        return value

    def neutral(self, key: str, *values: Any) -> None:
        """Refuses a key by name unless it is absent, null or one of the values that leave the function alone."""
        value = self.get(key, None)
        if value is not None and value not in values:
            raise UserError(f"{key}={value!r} is not implemented for {self._hf.get('model_type')}")

    def finish(self) -> None:
        """Refuses every unread key that may change the maths and is not null, false, 0, 1 or empty."""
        if self._hf.get("quantization_config"):
            method = self._hf["quantization_config"].get("quant_method", "unknown")
            raise UserError(
                f"quantization_config: weights stored by {method!r} cannot be read; use the dense checkpoint"
            )
        for key, value in self._hf.items():
            neutral = not value or (value == 1 and value is not True)
            if key not in self._read and key not in _HARMLESS and not neutral and _MATHS.search(key.lower()):
                raise UserError(
                    f"{key}={value!r} is not implemented for {self._hf.get('model_type')}; refused, not ignored"
                )


def positive(key: str, value: Any) -> float:
    """Returns a number > 0 or names the key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{key}={value!r} is not a number > 0")
    return float(value)


def family(model_type: Any) -> ModuleType:
    """Returns the module of a model_type; an unknown one is a UserError that lists the known ones."""
    known = lookup.modules(families.__name__)
    if model_type in known:
        return importlib.import_module(f"{families.__name__}.{model_type}")
    raise UserError(f"model_type={model_type!r} is not a known family.{lookup.suggestion(str(model_type), known)}")


def rope(keys: Keys, *, max_position: int) -> model_config.Rope:
    """Returns the rotary settings from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).

    `rope_parameters` may hold one dict for each layer type; they must agree, since a model has one rotary table here.
    """
    given = keys.get("rope_scaling", None) or keys.get("rope_parameters", None) or {}
    keys.get("rope_parameters", None)
    if not isinstance(given, dict):
        raise UserError(f"rope_parameters={given!r} is not a dictionary")
    theta = keys.get("rope_theta", 10_000.0)
    keys.neutral("partial_rotary_factor", 1)
    nested = [value for value in given.values() if isinstance(value, dict)]
    if nested:
        if len(nested) < len(given) or any(value != nested[0] for value in nested):
            raise UserError(f"rope_parameters={given!r}: layers with different rotary settings are not implemented")
        given = nested[0]
    left = dict(given)
    older = left.pop("type", None)
    kind = left.pop("rope_type", older) or "default"
    theta = positive("rope_theta", left.pop("rope_theta", None) or theta)
    read: dict[str, Any] = {}
    if kind in ("linear", "dynamic", "llama3"):
        read["factor"] = _needed(left, kind, "factor")
    if kind == "dynamic":  # transformers stretches beyond max_position_embeddings, whatever the dictionary says
        left.pop("original_max_position_embeddings", None)
        read["original_max_position"] = max_position
    elif kind == "llama3":
        read["low_freq_factor"] = _needed(left, kind, "low_freq_factor")
        read["high_freq_factor"] = _needed(left, kind, "high_freq_factor")
        left.setdefault("original_max_position_embeddings", max_position)
        read["original_max_position"] = int(_needed(left, kind, "original_max_position_embeddings"))
    elif kind not in ("default", "linear"):
        raise UserError(f"rope_type={kind!r} is not implemented; known: default, linear, dynamic, llama3")
    for key, value in left.items():
        if value is not None and not (key in ("partial_rotary_factor", "factor") and value == 1):
            raise UserError(f"rope_parameters: {key}={value!r} is not implemented for rope_type={kind!r}")
    return model_config.Rope(kind=kind, theta=theta, **read)


def _needed(parameters: dict[str, Any], kind: str, key: str) -> float:
    if parameters.get(key) is None:
        raise UserError(f"rope_parameters: rope_type={kind!r} needs {key!r}")
    return positive(f"rope_parameters: {key}", parameters.pop(key))


def windows_by_layer(keys: Keys, n_layers: int) -> tuple[int, ...]:
    """Returns the windows of Qwen's rule: layer_types where given, else sliding from layer max_window_layers on.

    Without use_sliding_window every layer sees everything.
    """
    window = keys.size("sliding_window", 4096)
    first = keys.get("max_window_layers", 28)
    kinds = keys.get("layer_types", None)
    sliding = keys.flag("use_sliding_window", False)
    if kinds is None:
        kinds = ["sliding_attention" if sliding and layer >= first else "full_attention" for layer in range(n_layers)]
    unknown = sorted({str(kind) for kind in kinds} - {"sliding_attention", "full_attention"})
    if unknown:
        raise UserError(
            f"layer_types: {', '.join(unknown)} is not implemented; known: full_attention, sliding_attention"
        )
    if len(kinds) != n_layers:
        raise UserError(f"layer_types has {len(kinds)} entries for num_hidden_layers={n_layers}")
    return tuple(window if sliding and kind == "sliding_attention" else 0 for kind in kinds)


def decoder_config(
    keys: Keys,
    family: str,
    *,
    n_kv_heads: int | None,
    head_dim: int | None,
    max_position: int,
    qkv_bias: bool,
    o_bias: bool,
    mlp_bias: bool,
    qk_norm: bool,
    windows: tuple[int, ...],
) -> model_config.ModelConfig:
    """Returns the config of a Llama-like decoder; defaults are transformers' for the family, None meaning derived."""
    d_model, n_heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    n_kv_heads = keys.size("num_key_value_heads", n_kv_heads or n_heads)
    if n_heads % n_kv_heads:
        raise UserError(f"num_attention_heads={n_heads} is not a multiple of num_key_value_heads={n_kv_heads}")
    if head_dim is None and keys.get("head_dim", None) is None and d_model % n_heads:
        raise UserError(
            f"hidden_size={d_model} is not a multiple of num_attention_heads={n_heads} and head_dim is absent"
        )
    head_dim = keys.size("head_dim", head_dim or d_model // n_heads)
    if head_dim % 2:
        raise UserError(f"head_dim={head_dim} is odd; rotary embeddings turn pairs")
    activation = keys.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UserError(f"hidden_act={activation!r} is not implemented for {family}; known: silu")
    max_position = keys.size("max_position_embeddings", max_position)
    config = model_config.ModelConfig(
        family=family,
        vocab_size=keys.size("vocab_size"),
        d_model=d_model,
        d_ff=keys.size("intermediate_size"),
        n_layers=keys.size("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        rope=rope(keys, max_position=max_position),
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        max_position=max_position,
        tie_embeddings=keys.flag("tie_word_embeddings", False),
        activation="silu",
        qkv_bias=qkv_bias,
        o_bias=o_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
        windows=windows,
    )
    keys.finish()
    return config


def decoder_names(config: model_config.ModelConfig) -> dict[str, Place]:
    """Returns the places of a Llama-like decoder's tensors."""
    places = {
        "model.embed_tokens.weight": Place("embed_tokens", None, False),
        "model.norm.weight": Place("norm", None, False),
    }
    if not config.tie_embeddings:
        places["lm_head.weight"] = Place("lm_head", None, True)
    for layer in range(config.n_layers):
        at = f"model.layers.{layer}"
        places[f"{at}.input_layernorm.weight"] = Place("blocks.input_norm", layer, False)
        places[f"{at}.post_attention_layernorm.weight"] = Place("blocks.post_norm", layer, False)
        for letter in "qkvo":
            module = f"{at}.self_attn.{letter}_proj"
            places[f"{module}.weight"] = Place(f"blocks.{letter}_proj", layer, True)
            if config.o_bias if letter == "o" else config.qkv_bias:
                places[f"{module}.bias"] = Place(f"blocks.{letter}_bias", layer, False)
        for name in ("gate", "up", "down"):
            places[f"{at}.mlp.{name}_proj.weight"] = Place(f"blocks.{name}_proj", layer, True)
            if config.mlp_bias:
                places[f"{at}.mlp.{name}_proj.bias"] = Place(f"blocks.{name}_bias", layer, False)
        if config.qk_norm:
            places[f"{at}.self_attn.q_norm.weight"] = Place("blocks.q_norm", layer, False)
            places[f"{at}.self_attn.k_norm.weight"] = Place("blocks.k_norm", layer, False)
    return places
