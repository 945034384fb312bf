"""The tensor names of Llama-like decoders: where each lives in our tree."""

from ftjax.models import config as model_config
from ftjax.models.families import _hf

# Names in our tree and in the file: of a layer's norms, and of an expert's projections.
PRE_NORMS = {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
EXPERT = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def decoder_names(
    config: model_config.ModelConfig,
    *,
    norms: dict[str, str] = PRE_NORMS,
    fused: bool = False,
    mlp: str = "mlp",
    expert: dict[str, str] = EXPERT,
) -> dict[str, _hf.Place]:
    """Returns the places of a Llama-like decoder's tensors.

    `norms` maps the norms of a layer to the file's names. `fused`: qkv_proj and gate_up_proj, as Phi-3 has them. `mlp`
    is the module of the MLP, and `expert` maps the projections of one expert to the file's names.
    """
    c = config
    places = {
        "model.embed_tokens.weight": _hf.Place("embed_tokens", None, False),
        "model.norm.weight": _hf.Place("norm", None, False),
    }
    if not c.tie_embeddings:
        places["lm_head.weight"] = _hf.Place("lm_head", None, True)
    for layer in range(c.n_layers):
        at = f"model.layers.{layer}"
        for leaf, name in norms.items():
            places[f"{at}.{name}.weight"] = _hf.Place(f"blocks.{leaf}", layer, False)
        if fused:
            widths = {"q": c.q_dim, "k": c.kv_dim, "v": c.kv_dim}
            places[f"{at}.self_attn.qkv_proj.weight"] = _fused(widths, layer)
        for letter in "o" if fused else "qkvo":
            module = f"{at}.self_attn.{letter}_proj"
            places[f"{module}.weight"] = _hf.Place(f"blocks.{letter}_proj", layer, True)
            if c.o_bias if letter == "o" else c.qkv_bias:
                places[f"{module}.bias"] = _hf.Place(f"blocks.{letter}_bias", layer, False)
        if c.qk_norm:
            places[f"{at}.self_attn.q_norm.weight"] = _hf.Place("blocks.q_norm", layer, False)
            places[f"{at}.self_attn.k_norm.weight"] = _hf.Place("blocks.k_norm", layer, False)
        if c.n_experts:
            places[f"{at}.{mlp}.gate.weight"] = _hf.Place("blocks.router", layer, True)
            for number in range(c.n_experts):
                for name, stored in expert.items():
                    tensor = f"{at}.{mlp}.experts.{number}.{stored}.weight"
                    places[tensor] = _hf.Place(f"blocks.{name}_proj", layer, True, expert=number)
            continue
        if fused:
            places[f"{at}.{mlp}.gate_up_proj.weight"] = _fused({"gate": c.d_ff, "up": c.d_ff}, layer)
        for name in ("down",) if fused else ("gate", "up", "down"):
            places[f"{at}.{mlp}.{name}_proj.weight"] = _hf.Place(f"blocks.{name}_proj", layer, True)
            if c.mlp_bias:
                places[f"{at}.{mlp}.{name}_proj.bias"] = _hf.Place(f"blocks.{name}_bias", layer, False)
    return places


def _fused(widths: dict[str, int], layer: int) -> _hf.Place:
    """Returns the place of a tensor that holds several projections, given their outputs."""
    parts, start = [], 0
    for name, width in widths.items():
        parts.append(_hf.Place(f"blocks.{name}_proj", layer, True, rows=(start, start + width)))
        start += width
    return _hf.Place("", layer, True, parts=tuple(parts))
