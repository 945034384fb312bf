"""What the families share: reading config.json key by key, rotary settings, window patterns, places of tensors."""

from collections.abc import Mapping
import importlib
import re
from types import ModuleType
from typing import Any, NamedTuple

from ftjax import lookup
from ftjax.errors import UserError
from ftjax.models import config as model_config
from ftjax.models import families
from ftjax.models.families import _rope


class Place(NamedTuple):
    """Where a tensor of a checkpoint lives: path of the leaf, row in it (None: the whole leaf), stored transposed.

    A tensor that holds several leaves, one after the other along its outputs (Phi-3's qkv_proj), has `parts`, each with
    the `rows` of the tensor that are its own, and no path.
    """

    path: str
    layer: int | None
    transpose: bool
    expert: int | None = None  # entry of the second axis, for a leaf [L, E, ...]
    rows: tuple[int, int] | None = None  # outputs [start, stop) of the tensor; None: all
    parts: tuple["Place", ...] = ()

    @property
    def pieces(self) -> tuple["Place", ...]:
        """The places of what the tensor holds: its parts, or itself."""
        return self.parts or (self,)

    @property
    def at(self) -> tuple[int, ...]:
        """Where in the leaf: (), (layer,) or (layer, expert)."""
        return tuple(i for i in (self.layer, self.expert) if i is not None)

    def stored_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape of the tensor in the file, given those of our leaves by path."""
        own = [shapes[piece.path][len(piece.at) :] for piece in self.pieces]
        one = (*own[0][:-1], sum(shape[-1] for shape in own))
        return one[::-1] if self.transpose else one


# Keys that say nothing about the function: bookkeeping, generation, training noise, speed.
# fmt: off
_HARMLESS = frozenset((
    "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled", "_name_or_path",
    "architectures", "attention_dropout", "attn_implementation", "attn_pdrop", "auto_map", "bos_token_id", "dtype",
    "embd_pdrop", "eos_token_id", "hidden_dropout", "initializer_range", "keys_to_ignore_at_inference",
    "max_window_layers", "model_max_length", "model_type", "name_or_path", "output_attentions",
    "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "resid_pdrop",
    "router_aux_loss_coef", "router_jitter_noise", "sep_token_id", "task_specific_params",
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

    def optional(self, key: str, default: float | None) -> float:
        """Returns a number > 0, or 0 where the key is null; absent means the default (None: 0)."""
        self._read.add(key)
        value = self._hf.get(key, default)
        return 0.0 if value is None else _rope.positive(key, value)

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
        return _rope.positive(key, self.get(key, default))

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


def family(model_type: Any) -> ModuleType:
    """Returns the module of a model_type; an unknown one is a UserError that lists the known ones."""
    known = lookup.modules(families.__name__)
    if model_type in known:
        return importlib.import_module(f"{families.__name__}.{model_type}")
    raise UserError(f"model_type={model_type!r} is not a known family.{lookup.suggestion(str(model_type), known)}")


def rope(
    keys: Keys,
    *,
    theta: float,
    max_position: int,
    original: int | None,
    head_dim: int,
    partial: bool,
    kinds: tuple[str, ...],
) -> model_config.Rope:
    """Returns the rotary settings from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).

    `rope_parameters` may hold one dict for each layer type; they must agree, since all layers share a rotary table
    here. `theta` and `original` (original_max_position_embeddings) are the family's defaults; `partial` tells whether
    it knows partial_rotary_factor.
    """
    given = _parameters(keys)
    nested = [value for value in given.values() if isinstance(value, dict)]
    if nested:
        if len(nested) < len(given) or any(value != nested[0] for value in nested):
            raise UserError(f"rope_parameters={given!r}: layers with different rotary settings are not implemented")
        given = nested[0]
    if not partial:
        keys.neutral("partial_rotary_factor", 1)
        if given.get("partial_rotary_factor") not in (None, 1):
            value = given["partial_rotary_factor"]
            raise UserError(f"rope_parameters: partial_rotary_factor={value!r} is not implemented for this family")
    return _rope.read(
        given,
        theta=keys.get("rope_theta", theta),
        max_position=max_position,
        original=keys.get("original_max_position_embeddings", original),
        partial=keys.get("partial_rotary_factor", 1.0),
        kinds=kinds,
        head_dim=head_dim,
    )


def _parameters(keys: Keys) -> dict[str, Any]:
    """Returns the dictionary of rotary parameters under its old or new name."""
    given = keys.get("rope_scaling", None) or keys.get("rope_parameters", None) or {}
    keys.get("rope_parameters", None)
    if not isinstance(given, dict):
        raise UserError(f"rope_parameters={given!r} is not a dictionary")
    return given


def ropes_by_kind(
    keys: Keys, *, full: float, sliding: float, max_position: int, head_dim: int
) -> tuple[model_config.Rope, model_config.Rope]:
    """Returns the rotary settings of full and of sliding layers (Gemma 3); the numbers are the default thetas.

    New: `rope_parameters` with a dict for each. Old: `rope_theta` and `rope_scaling` for full layers,
    `rope_local_base_freq` for sliding ones.
    """
    keys.neutral("partial_rotary_factor", 1)
    new, old = keys.get("rope_parameters", None) or {}, keys.get("rope_scaling", None) or {}
    thetas = {
        "full_attention": keys.get("rope_theta", full),
        "sliding_attention": keys.get("rope_local_base_freq", sliding),
    }
    if not isinstance(new, dict) or new.keys() - thetas.keys():
        raise UserError(f"rope_parameters={new!r}: this family has one dictionary for each of {', '.join(thetas)}")
    if not isinstance(old, dict):
        raise UserError(f"rope_scaling={old!r} is not a dictionary")
    given = {kind: dict(new.get(kind) or {}) for kind in thetas}
    given["full_attention"] |= old
    kinds = tuple(kind for kind in _rope.KINDS if kind not in ("dynamic", "longrope"))
    original = keys.get("original_max_position_embeddings", None)
    one = lambda kind: _rope.read(
        given[kind],
        theta=thetas[kind],
        max_position=max_position,
        original=original,
        partial=1.0,
        kinds=kinds,
        head_dim=head_dim,
    )
    return one("full_attention"), one("sliding_attention")


def layer_kinds(keys: Keys, otherwise: list[str]) -> list[str]:
    """Returns layer_types, "full_attention" or "sliding_attention" for each layer; `otherwise` where it is absent."""
    kinds = keys.get("layer_types", otherwise)
    unknown = sorted({str(kind) for kind in kinds} - {"sliding_attention", "full_attention"})
    if unknown:
        raise UserError(
            f"layer_types: {', '.join(unknown)} is not implemented; known: full_attention, sliding_attention"
        )
    if len(kinds) != len(otherwise):
        raise UserError(f"layer_types has {len(kinds)} entries for num_hidden_layers={len(otherwise)}")
    return list(kinds)


def kinds_of(sliding: list[bool]) -> list[str]:
    """Returns the layer types in words."""
    return ["sliding_attention" if yes else "full_attention" for yes in sliding]


def windows_by_layer(keys: Keys, n_layers: int) -> tuple[int, ...]:
    """Returns the windows of Qwen's rule: layer_types where given, else sliding from layer max_window_layers on.

    Without use_sliding_window every layer sees everything.
    """
    window = keys.size("sliding_window", 4096)
    first = keys.get("max_window_layers", 28)
    sliding = keys.flag("use_sliding_window", False)
    kinds = layer_kinds(keys, kinds_of([sliding and layer >= first for layer in range(n_layers)]))
    return tuple(window if sliding and kind == "sliding_attention" else 0 for kind in kinds)


def activation(keys: Keys, key: str, default: str) -> str:
    """Returns the activation of the MLP by our name."""
    name = keys.get(key, default)
    if name not in ("silu", "swish", "gelu_pytorch_tanh"):
        raise UserError(f"{key}={name!r} is not implemented; known: silu, gelu_pytorch_tanh")
    return "silu" if name == "swish" else name


def check_experts(config: model_config.ModelConfig) -> None:
    """Refuses a number of experts a token that the model does not have."""
    if config.top_k > config.n_experts:
        raise UserError(f"num_experts_per_tok={config.top_k} is above the number of experts, {config.n_experts}")


def head_dim_of(keys: Keys, default: int | None) -> int:
    """Returns head_dim; where it is absent, the default or (None) hidden_size / num_attention_heads."""
    d_model, n_heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    if default is None and keys.get("head_dim", None) is None and d_model % n_heads:
        raise UserError(
            f"hidden_size={d_model} is not a multiple of num_attention_heads={n_heads} and head_dim is absent"
        )
    head_dim = keys.size("head_dim", default or d_model // n_heads)
    if head_dim % 2:
        raise UserError(f"head_dim={head_dim} is odd; rotary embeddings turn pairs")
    return head_dim


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
    rope_theta: float = 10_000.0,
    rope_original: int | None = None,
    rope_partial: bool = False,
    rope_kinds: tuple[str, ...] = _rope.KINDS,
    rope_given: model_config.Rope | None = None,
    norm_eps: float = 1e-6,
    tied: bool = False,
    act: str | None = None,
) -> model_config.ModelConfig:
    """Returns the config of a Llama-like decoder; defaults are transformers' for the family, None meaning derived.

    A family with a mechanism beyond these reads its keys first, because this refuses every key that is still unread,
    and replaces the fields in what it gets.
    """
    n_heads = keys.size("num_attention_heads")
    n_kv_heads = keys.size("num_key_value_heads", n_kv_heads or n_heads)
    if n_heads % n_kv_heads:
        raise UserError(f"num_attention_heads={n_heads} is not a multiple of num_key_value_heads={n_kv_heads}")
    head_dim = head_dim_of(keys, head_dim)
    max_position = keys.size("max_position_embeddings", max_position)
    config = model_config.ModelConfig(
        family=family,
        vocab_size=keys.size("vocab_size"),
        d_model=keys.size("hidden_size"),
        d_ff=keys.size("intermediate_size"),
        n_layers=keys.size("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        rope=rope_given
        or rope(
            keys,
            theta=rope_theta,
            max_position=max_position,
            original=rope_original,
            head_dim=head_dim,
            partial=rope_partial,
            kinds=rope_kinds,
        ),
        norm_eps=keys.number("rms_norm_eps", norm_eps),
        max_position=max_position,
        tie_embeddings=keys.flag("tie_word_embeddings", tied),
        activation=act or activation(keys, "hidden_act", "silu"),
        qkv_bias=qkv_bias,
        o_bias=o_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
        windows=windows,
    )
    keys.finish()
    return config
