"""Live against transformers: what its processors and warpers leave of logits, and its greedy text with a penalty."""

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
from parity import peers
import pytest
import scipy.stats
import torch
import transformers

from ftjax.checkpoint import hf_import
from ftjax.sampling import generate, warp

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
VOCABULARY, ROWS, DRAWS = 300, 4, 4000
SETTINGS = (
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.1},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 0.8},
)


@pytest.fixture(scope="module")
def case():
    """Logits of some rows, and tokens that each has."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (ROWS, VOCABULARY)).astype(np.float32)
    return logits, rng.integers(0, VOCABULARY, (ROWS, 40))


def theirs(settings, logits, tokens):
    """Probabilities after the list of processors that generate() itself makes, in its order."""
    model = peers.model(cases.MODELS["llama_plain"])
    wanted = {"top_k": 0} | settings  # its own default keeps the 50 likeliest
    config = transformers.GenerationConfig(do_sample=True, **wanted)
    config, _ = model._prepare_generation_config(config)
    config.top_k = wanted["top_k"]
    made = model._get_logits_processor(config, tokens.shape[1], torch.from_numpy(tokens), None, [])
    return torch.softmax(made(torch.from_numpy(tokens), torch.from_numpy(logits)), dim=-1).numpy()


def ours(settings, logits, tokens, keys_B):
    """Tokens and their log-probabilities, one for each row of logits and each key."""
    number = lambda name: jnp.float32(settings[name]) if name in settings else None
    warps = warp.Warps(*map(number, ("temperature", "top_p", "min_p", "repetition_penalty")))
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, tokens, True, axis=1)
    zeros = jnp.zeros(len(logits), jnp.int32)
    return warp.sample(jnp.asarray(logits), keys_B, zeros, jnp.asarray(seen), warps, k=settings.get("top_k", 0))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "+".join(settings))
def test_draws_follow_what_the_warpers_of_transformers_leave(settings, case):
    """Chi-square of 4,000 draws a row, cells of at least 10 expected; log-probabilities of what is drawn to 1e-5."""
    logits, tokens = case
    wanted = theirs(settings, logits, tokens)
    for row in range(ROWS):
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(row * DRAWS + jnp.arange(DRAWS))
        several = lambda x, row=row: np.repeat(x[row : row + 1], DRAWS, axis=0)
        drawn, logps = map(np.asarray, ours(settings, several(logits), several(tokens), keys))
        counts, expected = np.bincount(drawn, minlength=VOCABULARY), DRAWS * wanted[row]
        assert not counts[expected == 0].any()
        np.testing.assert_allclose(logps, np.log(wanted[row][drawn]), rtol=0, atol=1e-5)
        large = expected >= 10
        cells = [np.append(x[large], x[~large].sum()) for x in (counts, expected)]
        cells = [x[cells[1] > 0] for x in cells] if cells[1][-1] < 10 else cells
        statistic = ((cells[0] - cells[1]) ** 2 / cells[1]).sum()
        assert statistic < scipy.stats.chi2.ppf(1 - 1e-3, len(cells[1]) - 1)


def test_greedy_text_with_a_penalty_of_repetition_is_that_of_transformers(tmp_path):
    made = peers.model(cases.MODELS["llama_plain"], seed=3)
    made.save_pretrained(tmp_path)
    config, base = hf_import.load(tmp_path)
    prompts = cases.inputs()["plain"][:, :8]  # of one length: transformers punishes the tokens of padding as well
    with torch.no_grad():
        wanted = made.generate(
            torch.from_numpy(prompts).long(), do_sample=False, repetition_penalty=1.3, max_new_tokens=16,
            min_new_tokens=16, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    settings = {"max_new_tokens": 16, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    ask = lambda **more: generate.generate(base, prompts.tolist(), jax.random.key(0), config, **settings, **more).tokens
    np.testing.assert_array_equal(ask(repetition_penalty=1.3), wanted[:, 8:].numpy())
    assert not np.array_equal(ask(), wanted[:, 8:].numpy())
