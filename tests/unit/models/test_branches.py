"""A prompt shared by its completions changes no number: not in a row of branches, of copies, or one sequence alone."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax.adapters import attach, init, lora
from ftjax.data import batch, candidates, encode, preference_batch
from ftjax.models import decoder, params
from ftjax.models.config import Rope

LENGTH = 52  # of the row of either layout, so that both run the same program
SHAPES = ((7, (5, 9)), (4, (3, 6, 2)))  # tokens of a prompt and of its completions
FACTORS = np.array([1.0, -0.7, 0.4, -1.3, 0.9], np.float32)  # of the completions in the value that is differentiated
FAST = {"xla_backend_optimization_level": 0}  # of compiling, which is most of the time here; the numbers are the same


class Given(NamedTuple):
    """A batch of whatever layout, and where its completions are."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    branches: np.ndarray | None
    members: np.ndarray  # [C, B, T], 1 for the tokens of a completion
    ends: tuple[np.ndarray, np.ndarray]  # rows and columns of the last tokens, [C]


class Found(NamedTuple):
    """What a policy says of each completion."""

    logps: Any  # [C], summed over tokens
    log_sum_squares: Any  # [C], summed over tokens
    last: Any  # [C, D], the hidden state that a reward model reads


@pytest.fixture(scope="module")
def prompts():
    """Two prompts with completions of unequal lengths; the second token of each does not count."""
    rng = np.random.default_rng(3)
    draw = lambda n: rng.integers(3, 61, n).astype(np.int32)
    return [
        candidates.Candidates(
            prompt=draw(prompt),
            completions=tuple(draw(n) for n in lengths),
            masks=tuple(np.array([1, 0, *[1] * (n - 2)], np.uint8) for n in lengths),
            pairs=((0, 1),),
            margins=(0.0,),
            labels=(np.nan,) * len(lengths),
            where=f"test:{prompt}",
        )
        for prompt, lengths in SHAPES
    ]


def in_one_row(prompts, prefix):
    made = preference_batch.pack_candidates([prompts], length=LENGTH, completions=5, pairs=2, prefix=prefix)
    members = (made.branches == np.arange(1, 6)[:, None, None]).astype(np.float32)
    ends = np.zeros(5, np.int32), made.ends[0]
    tokens, targets, weights, positions = made.tokens, made.targets, made.weights, made.positions
    return Given(tokens, targets, weights, positions, made.segments, made.branches, members, ends)


def each_alone(prompts):
    """As SFT has it: a row for each completion behind its prompt."""
    examples = [
        encode.Example(np.concatenate([one.prompt, ids]), np.concatenate([0 * one.prompt, mask]).astype(np.uint8), "")
        for one in prompts
        for ids, mask in one.branches()
    ]
    made = batch.pack_rows([[example] for example in examples], length=16)
    ends = np.arange(5), np.array([len(example.ids) - 1 for example in examples])
    members = np.broadcast_to(np.eye(5, dtype=np.float32)[:, :, None], (5, 5, 16))
    return Given(made.tokens, made.targets, made.weights, made.positions, made.segments, None, members, ends)


@functools.partial(jax.jit, static_argnums=3, compiler_options=FAST)
@functools.partial(jax.grad, has_aux=True)
def gradient(adapters, base, given, config):
    policy = attach.attach(base, adapters)
    out = decoder.logps(
        policy, given.tokens, given.targets, given.weights, config, given.positions, given.segments, given.branches,
        squares=True,
    )  # fmt: skip
    hidden_BTD = decoder.hidden(policy, given.tokens, config, given.positions, given.segments, given.branches)
    summed = lambda x_BT: jnp.einsum("cbt,bt->c", given.members, x_BT)
    found = Found(summed(out.logps), summed(out.log_sum_squares), hidden_BTD[given.ends])
    toward = jnp.sin(jnp.arange(config.d_model, dtype=jnp.float32))
    return jnp.sum(FACTORS * (found.logps + found.last @ toward)), found


CASES = {
    "llama": {},
    "windows, caps, longrope, a layer without positions": {
        "windows": (5, 0, 5),
        "attention_softcap": 2.0,
        "logit_softcap": 3.0,
        "post_norms": True,
        "tie_embeddings": False,
        "rope": Rope(
            "longrope", 100.0, original_max_position=8, short_factors=(1.0,) * 4, long_factors=(1.0, 2.0, 5.0, 9.0)
        ),
        "second_rope": Rope("none", 100.0),
        "second_rope_layers": (False, True, False),
        "remat": "dots",
    },
    "experts": {"windows": (0, 4, 0), "n_experts": 4, "top_k": 2, "normalize_top_k": True, "d_ff": 16},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_copies_of_the_prompt_and_of_each_sequence_alone(
    changes, prompts, tiny_config
):
    config = tiny_config(**changes)
    base = params.init(jax.random.key(0), config, "float32")
    base = base.replace(embed_tokens=base.embed_tokens * 20)  # so that no prediction is nearly uniform
    make = functools.partial(lora.init_one, dropout=0.0, rslora=False)
    fresh = init.init(
        jax.random.key(1), base, make=make, targets=("q_proj", "v_proj"), rank=2, alpha=2.0, rank_pattern={},
        alpha_pattern={},
    )  # fmt: skip
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda x: (rng.standard_normal(x.shape) / 3).astype(np.float32), fresh)
    layouts = {prefix: in_one_row(prompts, prefix) for prefix in candidates.PREFIXES}
    alone, found = gradient(adapters, base, each_alone(prompts), config)
    assert min(float(np.abs(slope).max()) for slope in jax.tree.leaves(alone)) > 1e-2
    for prefix, given in layouts.items():
        slopes, told = gradient(adapters, base, given, config)
        for name, mine, book in zip(Found._fields, told, found, strict=True):
            np.testing.assert_allclose(mine, book, rtol=1e-5, atol=1e-5, err_msg=f"{prefix}: {name}")
        for mine, book in zip(jax.tree.leaves(slopes), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(mine, book, rtol=0, atol=1e-5 * np.abs(book).max(), err_msg=prefix)
