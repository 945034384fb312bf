"""How far a policy has gone from its reference, by its own samples."""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import hosts
from ftjax.data import batch as batches
from ftjax.data import encode
from ftjax.evals import likelihood
from ftjax.models.config import ModelConfig
from ftjax.sampling import generate


def sampled(
    params: Any,
    reference: Any,
    prompts: Sequence[Sequence[int]],
    *,
    config: ModelConfig,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int,
    seed: int,
) -> dict[str, float]:
    """Returns KL(policy || reference) of whole completions in nats, the mean over prompts, and its standard error.

    One completion of each prompt, drawn at temperature 1 and cut after `max_new_tokens`: the mean of log pi - log ref
    summed over its tokens, which is unbiased (k1). Both are of a full forward pass, not of the sampler.
    """
    longest = max(len(prompt) for prompt in prompts) + max_new_tokens
    length, found = -(-longest // 64) * 64, []
    for first in range(0, len(prompts), batch_size):
        asked = list(prompts[first : first + batch_size])
        filled = asked + [asked[-1]] * (min(batch_size, len(prompts)) - len(asked))
        out = generate.generate(
            params,
            filled,
            jax.random.key(seed + first),
            config,
            max_new_tokens=max_new_tokens,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            stop_ids=stop_ids,
        )
        tokens, counts = hosts.on_host((out.tokens, out.mask.sum(axis=1)))
        rows = [_row(prompt, row[:n]) for prompt, row, n in zip(filled, tokens, counts, strict=True)]
        batch = jax.tree.map(jnp.asarray, batches.pad_rows(rows, length=length))
        mine, theirs = (likelihood.of_rows(model, batch, config=config) for model in (params, reference))
        found.append(np.asarray(hosts.on_host(mine - theirs), np.float64)[: len(asked)])
    every = np.concatenate(found)
    error = every.std(ddof=1) / math.sqrt(len(every)) if len(every) > 1 else math.nan
    return {"eval_sampled_kl": float(every.mean()), "eval_sampled_kl_error": float(error)}


def _row(prompt: Sequence[int], completion: np.ndarray) -> encode.Example:
    ids = np.concatenate([np.asarray(prompt, np.int32), completion.astype(np.int32)])
    mask = np.concatenate([np.zeros(len(prompt), np.uint8), np.ones(len(completion), np.uint8)])
    return encode.Example(ids, mask, "sample")
