"""transformers and PEFT on the golden cases: random weights in, logits and greedy tokens out. Needs torch."""

import copy
import tempfile
from typing import Any

from golden import cases
import numpy as np
import peft
from safetensors import numpy as safetensors_numpy
import torch
import transformers


def model(config: dict[str, Any], seed: int = 0) -> Any:
    """A float32 transformers model with random weights that float16 holds exactly; norms near one, biases not zero.

    Gemma's norms multiply by one plus their weights, so there these are near zero.
    """
    given = {key: value for key, value in config.items() if key != "model_type"}
    made = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(config["model_type"], **given), attn_implementation="eager"
    ).float()
    rng = np.random.default_rng(seed)
    centre = 0.0 if config["model_type"].startswith("gemma") else 1.0
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            norm = name.endswith("norm.weight")
            scale = 0.2 if norm or name.endswith("bias") else parameter.shape[-1] ** -0.5
            value = cases.rounded(rng, tuple(parameter.shape), scale, mean=centre if norm else 0.0)
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))
    made.tie_weights()
    return made.eval()


def state(made: Any) -> dict[str, np.ndarray]:
    """The tensors as save_pretrained writes them: no second copy of a tied head, experts one by one."""
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        return safetensors_numpy.load_file(f"{folder}/model.safetensors")


def logits(made: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits for the three kinds of input, each with the positions that transformers itself would use.

    Every input gets a fresh copy: dynamic RoPE remembers the longest input that it has seen.
    """

    def run(tokens: np.ndarray, **keys: Any) -> np.ndarray:
        try:
            fresh = copy.deepcopy(made)
        except RuntimeError:  # factors that PEFT ties (ensure_weight_tying) cannot be copied
            fresh = made
        return fresh(torch.from_numpy(tokens).long(), use_cache=False, **keys).logits.numpy()

    mask = torch.from_numpy(given["padded_segments"]).long()
    rows = [np.unique(row, return_counts=True)[1] for row in given["packed_segments"]]
    restarting = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in rows])
    with torch.no_grad():
        return {
            "plain_logits": run(given["plain"]),
            "padded_logits": run(given["padded"], attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)),
            "packed_logits": run(given["packed"], position_ids=restarting),
        }


def greedy(made: Any, given: dict[str, np.ndarray], new: int = 16) -> np.ndarray:
    """Tokens that generate() adds to the left-padded prompts, with its cache."""
    tokens, mask = (torch.from_numpy(given[name]).long() for name in ("padded", "padded_segments"))
    with torch.no_grad():
        out = copy.deepcopy(made).generate(
            tokens,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=new,
            min_new_tokens=new,
            eos_token_id=None,
            pad_token_id=0,
        )
    return out[:, tokens.shape[1] :].numpy().astype(np.int32)


def adapted(made: Any, arguments: dict[str, Any], seed: int = 1) -> Any:
    """The model with a PEFT adapter on it; all that trains, and VeRA's matrices, are random numbers of float16."""
    torch.manual_seed(0)
    kinds = {"LORA": peft.LoraConfig, "IA3": peft.IA3Config, "VERA": peft.VeraConfig}
    arguments = dict(arguments)
    kind = kinds[arguments.pop("peft_type", "LORA")]
    wrapped = peft.get_peft_model(made, kind(**({"task_type": "CAUSAL_LM"} | arguments)))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(wrapped.named_parameters()):
            if not parameter.requires_grad:
                continue
            value = cases.rounded(rng, tuple(parameter.shape), 0.5 * parameter.shape[-1] ** -0.5).astype(np.float32)
            if "lora_" not in name or "magnitude" in name:
                value = (parameter.numpy() + value).astype(np.float16).astype(np.float32)
            parameter.copy_(torch.from_numpy(value))
        if kind is peft.VeraConfig and arguments.get("save_projection", True):
            for shared in (wrapped.base_model.vera_A, wrapped.base_model.vera_B):
                shared["default"].copy_(shared["default"].half().float())
    return wrapped.eval()


def merged(wrapped: Any, case: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits of the merged model; of the attached one where PEFT's merge is known to give another model."""
    return logits(wrapped if case in cases.MERGED_APART else wrapped.merge_and_unload(), given)


def scorer(folder: Any) -> Any:
    """The checkpoint of a language model as a reward model, whose head is drawn anew; token 0 is padding."""
    made = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, pad_token_id=0, attn_implementation="eager"
    )
    return made.float().eval()


def scores(made: Any, tokens: np.ndarray) -> np.ndarray:
    """The scores of rows that zeros pad on the right."""
    given = torch.from_numpy(tokens).long()
    with torch.no_grad():
        return copy.deepcopy(made)(given, attention_mask=(given != 0).long(), use_cache=False).logits[:, 0].numpy()


def harnesses(folder: Any) -> tuple[Any, Any]:
    """A model of ours, and of the `hf` backend of lm-evaluation-harness, as the harness sees them, in float32."""
    from lm_eval.models import huggingface

    from ftjax import inference
    from ftjax.evals import harness

    model = inference.load(str(folder), adapter=None, template_name=None, dtype="float32")
    ours = harness.bridge(
        model.params, model.config, model.tokenizer, chat=model.template, stop_ids=model.stop_ids, length=256, rows=2,
        seed=0,
    )  # fmt: skip
    return ours, huggingface.HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
