import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftjax import mesh as meshes
from ftjax import tree
from ftjax.adapters import attach, init, lora
from ftjax.errors import UserError
from ftjax.models import decoder, params
from ftjax.quant import convert
from ftjax.sampling import generate

PROMPTS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8]]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def run(tiny_params, tiny_config):
    sharp = tiny_params.replace(embed_tokens=tiny_params.embed_tokens * 20)  # or every distribution is nearly flat

    def call(prompts=PROMPTS, key=KEY, **changes):
        given = {"max_new_tokens": 8, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
        return generate.generate(sharp, prompts, key, tiny_config(), **(given | changes))

    call.params = sharp
    return call


@pytest.fixture(scope="module")
def greedy(run):
    return run()


@pytest.fixture(scope="module")
def sampled(run):
    return run(temperature=0.7)


def padded(rows, length=16):
    """Rows of tokens at the left end of [B, length], zeros behind them, which no earlier token sees."""
    return np.asarray([[*row, *[0] * (length - len(row))] for row in rows], np.int32)


logits = jax.jit(decoder.logits, static_argnums=2)
logps = jax.jit(decoder.logps, static_argnums=4)


def test_greedy_decoding_with_the_cache_equals_full_forward_passes(run, greedy, tiny_config):
    rows = [list(prompt) for prompt in PROMPTS]
    for _ in range(8):
        found = logits(run.params, padded(rows), tiny_config())
        rows = [[*ids, int(jnp.argmax(one[len(ids) - 1]))] for ids, one in zip(rows, found, strict=True)]
    assert greedy.tokens.tolist() == [ids[-8:] for ids in rows]
    assert np.asarray(greedy.mask).all()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampled_logps_are_those_of_a_full_forward_pass_at_that_temperature(run, temperature, tiny_config):
    out = run(temperature=temperature)
    rows = [prompt + row for prompt, row in zip(PROMPTS, out.tokens.tolist(), strict=True)]
    found = jax.nn.log_softmax(logits(run.params, padded(rows), tiny_config()) / temperature)
    for row, prompt in enumerate(PROMPTS):
        place = np.arange(len(prompt) - 1, len(prompt) + 7)
        np.testing.assert_allclose(out.logps[row], found[row, place, out.tokens[row]], rtol=0, atol=1e-5)


def test_a_seed_repeats_a_sample_and_another_seed_does_not(run, sampled):
    np.testing.assert_array_equal(run(temperature=0.7).tokens, sampled.tokens)
    assert not np.array_equal(run(temperature=0.7, key=jax.random.key(1)).tokens, sampled.tokens)


def test_a_rows_sample_does_not_depend_on_its_neighbours(run, sampled):
    other = run(prompts=[PROMPTS[0], [50, 51], [60]], temperature=0.7)
    np.testing.assert_array_equal(other.tokens[0], sampled.tokens[0])


def test_a_row_ends_with_its_stop_token_and_keeps_it(run, greedy):
    stop = int(greedy.tokens[0, 3])
    out = run(stop_ids=(stop,))
    first = greedy.tokens[0].tolist().index(stop)
    assert out.mask[0].tolist() == [1] * (first + 1) + [0] * (7 - first)
    assert out.tokens[0].tolist() == greedy.tokens[0].tolist()[: first + 1] + [0] * (7 - first)
    assert out.ended.tolist() == [stop in row for row in greedy.tokens.tolist()]


def test_neighbours_change_nothing_to_the_bit(run, sampled):
    other = run(prompts=[[50, 51], PROMPTS[1], [60] * 30], temperature=0.7)
    np.testing.assert_array_equal(other.tokens[1], sampled.tokens[1])
    np.testing.assert_array_equal(other.logps[1], sampled.logps[1])


def test_sampled_logps_are_those_of_a_training_forward_pass(run, tiny_config):
    out = run(temperature=1.0)
    rows = padded([prompt + row for prompt, row in zip(PROMPTS, out.tokens.tolist(), strict=True)])
    targets, ones = np.roll(rows, -1, axis=1), np.ones(rows.shape, np.float32)
    found = logps(run.params, rows, targets, ones, tiny_config(), None, None).logps
    for row, prompt in enumerate(PROMPTS):
        place = slice(len(prompt) - 1, len(prompt) + 7)
        np.testing.assert_allclose(out.logps[row], found[row, place], rtol=0, atol=1e-5)


def test_samples_of_a_prompt_are_those_of_the_prompt_repeated(run):
    together = run(temperature=0.7, samples=2)
    apart = run(prompts=[prompt for prompt in PROMPTS for _ in range(2)], temperature=0.7)
    np.testing.assert_array_equal(together.tokens, apart.tokens)
    np.testing.assert_allclose(together.logps, apart.logps, rtol=0, atol=3e-6)
    assert not np.array_equal(together.tokens[0], together.tokens[1])


def test_a_row_that_goes_on_after_its_stop_token_says_that_it_has_one(run, greedy):
    stop = int(greedy.tokens[0, 3])
    out = run(stop_ids=(stop,), ignore_stop=True)
    np.testing.assert_array_equal(out.tokens, greedy.tokens)
    assert np.asarray(out.mask).all()
    assert out.ended.tolist() == [stop in row for row in greedy.tokens.tolist()]
    assert out.ended[0]
    assert not np.asarray(greedy.ended).any()


def test_a_penalty_of_repetition_counts_prompt_and_completion(run, tiny_config):
    out = run(repetition_penalty=1.5)
    rows = [list(prompt) for prompt in PROMPTS]
    for _ in range(8):
        found = np.array(logits(run.params, padded(rows), tiny_config()))
        for ids, one in zip(rows, found, strict=True):
            seen, last = sorted(set(ids)), one[len(ids) - 1]
            last[seen] = np.where(last[seen] < 0, last[seen] * 1.5, last[seen] / 1.5)
            ids.append(int(last.argmax()))
    assert out.tokens.tolist() == [ids[-8:] for ids in rows]
    assert not np.array_equal(out.tokens, run().tokens)


def test_a_base_in_four_bits_with_an_adapter_decodes_as_it_computes(tiny_config):
    config = tiny_config(tie_embeddings=False, n_layers=1, windows=(0,))
    dense = params.init(jax.random.key(0), config, "float32")
    quantised = params.from_paths(
        {
            name: convert.leaf(leaf, convert.Few("nf4-dq", 16), name)
            if name.startswith("blocks.") and leaf.ndim == 3
            else leaf
            for name, leaf in tree.paths(dense.replace(lm_head=dense.lm_head * 5)).items()
        }
    )
    make = lambda key, weight, rank, alpha: lora.init_one(
        key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=False
    )
    fresh = init.init(
        jax.random.key(1),
        quantised,
        make=make,
        targets="all-linear",
        rank=2,
        alpha=4.0,
        rank_pattern={},
        alpha_pattern={},
    )
    adapters = jax.tree.map(lambda x: 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), fresh)
    settings = {"max_new_tokens": 8, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop_ids": ()}
    model = attach.attach(quantised, adapters)
    out = generate.generate(model, PROMPTS, KEY, config, **settings)
    rows = padded([prompt + row for prompt, row in zip(PROMPTS, out.tokens.tolist(), strict=True)])
    found = jax.nn.log_softmax(logits(model, rows, config))
    for row, prompt in enumerate(PROMPTS):
        place = np.arange(len(prompt) - 1, len(prompt) + 7)
        np.testing.assert_allclose(out.logps[row], found[row, place, out.tokens[row]], rtol=0, atol=1e-5)
    nothing = attach.attach(quantised, jax.tree.map(jnp.zeros_like, adapters))  # the base, by the same program
    bare = generate.generate(nothing, PROMPTS, KEY, config, **settings)
    assert not np.array_equal(bare.tokens, out.tokens)


def test_on_a_mesh_rows_are_spread_and_nothing_changes(tiny_config):
    config = tiny_config(n_layers=1, windows=(0,))
    base, mesh = params.init(jax.random.key(0), config, "float32"), meshes.make(data=2, fsdp=2, tensor=2)
    base = base.replace(embed_tokens=base.embed_tokens * 20)
    placed = jax.device_put(base, meshes.base_shardings(mesh, base, params.axes(config)))
    settings = {"max_new_tokens": 8, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "stop_ids": (7, 9, 11)}
    prompts = [*PROMPTS, [4, 4]]
    ask = lambda model: generate.generate(model, prompts, KEY, config, samples=2, **settings)
    alone = ask(base)
    with jax.set_mesh(mesh):
        found = ask(placed)
    assert found.tokens.sharding.shard_shape(found.tokens.shape)[0] == 2  # of 8 rows, over data and fsdp
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.logps, alone.logps, atol=1e-5)
    np.testing.assert_array_equal(found.ended, alone.ended)


def test_samples_follow_the_distribution(run, tiny_config):
    """Chi-square of 512 first tokens against the model's own probabilities, 5 cells of at least 10 expected."""
    out = run(prompts=[[5, 9, 3]] * 512, max_new_tokens=1, temperature=1.0)
    probs = np.asarray(jax.nn.softmax(logits(run.params, padded([[5, 9, 3]] * 3), tiny_config())[0, 2]))
    order = np.argsort(-probs)
    cells = [order[:1], order[1:2], order[2:4], order[4:8], order[8:]]
    seen = np.asarray([np.isin(out.tokens[:, 0], cell).sum() for cell in cells])
    expected = np.asarray([512 * probs[cell].sum() for cell in cells])
    assert expected.min() > 5
    assert ((seen - expected) ** 2 / expected).sum() < 18.5  # 0.1 % of a chi-square with 4 degrees of freedom


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prompts": [[1], []]}, "every prompt needs at least one token"),
        ({"temperature": -1.0}, "temperature -1.0 must be >= 0"),
        ({"top_p": 0.0}, r"top_p 0.0 must be in \(0, 1\]"),
        ({"min_p": 1.5}, r"min_p 1.5 must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0.0 must be > 0"),
        ({"samples": 0}, "samples 0 must be >= 1"),
        ({"slots": -1}, "slots -1 must be >= 0"),
        ({"stop_strings": ["x"]}, "stop_strings need the tokenizer"),
        ({"stop_strings": "x", "tokenizer": str}, "must be a list of strings that are not empty"),
        ({"stop_strings": ["x"], "tokenizer": str, "ignore_stop": True}, "ignore_stop with stop_strings"),
        ({"max_new_tokens": 600}, "exceed the context of 512; shorten the prompt or lower max_new_tokens"),
    ],
)
def test_impossible_requests_are_refused(run, changes, text):
    with pytest.raises(UserError, match=text):
        run(**changes)
