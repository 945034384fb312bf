"""Many rows through few slots, and rows that end by their text."""

import jax
import numpy as np
import pytest

from ftjax import inference
from ftjax.data import tokenizer
from ftjax.errors import UserError
from ftjax.models import params
from ftjax.sampling import generate, queue, rows, stops

KEY = jax.random.key(0)
LENGTHS = (3, 40, 1, 17, 33, 8, 25)
PROMPTS = [np.random.default_rng(n).integers(1, 61, n).tolist() for n in LENGTHS]


def letters(ids):
    """The text of tokens: one character each."""
    return "".join(chr(60 + i) for i in ids)


def test_prompts_are_padded_by_doubling_and_long_ones_by_quarters_of_it():
    lengths = {1: 32, 32: 32, 33: 64, 257: 512, 512: 512, 513: 640, 640: 640, 641: 768, 1025: 1280, 2048: 2048}
    assert {size: queue.padded(size) for size in lengths} == lengths
    assert len({queue.padded(size) for size in range(1, 4097)}) == 5 + 3 * 4
    assert all(size <= queue.padded(size) <= size * 1.25 for size in range(512, 4097))


@pytest.fixture(scope="module")
def run(tiny_config):
    config = tiny_config(n_layers=1, windows=(0,))
    base = params.init(jax.random.key(0), config, "float32")
    sharp = base.replace(embed_tokens=base.embed_tokens * 20)  # or every distribution is nearly flat
    settings = {"max_new_tokens": 40, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop_ids": (3, 4, 5), "samples": 3}
    settings["repetition_penalty"] = 1.1  # so that what a row has seen goes through slots with it
    return lambda **changes: generate.generate(sharp, PROMPTS, KEY, config, **(settings | changes))


@pytest.fixture(scope="module")
def whole(run):
    """All 21 rows in one batch: some end at once, some at the length."""
    found = run()
    counts = np.asarray(found.mask.sum(axis=1))
    assert counts.min() < 8
    assert 3 < (counts == 40).sum() < 18
    return found


def assert_equal(found, wanted):
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_array_equal(found.ended, wanted.ended)
    np.testing.assert_allclose(found.logps, wanted.logps, rtol=0, atol=1e-5)


def test_rows_through_few_slots_are_those_of_one_batch_and_programs_stay_few(run, whole):
    """4 slots are filled again and again, and halved twice at the end; the bounds are products of logarithms."""
    counted = (rows.fill, rows.advance, rows.empty, rows.shift, rows.chosen)
    before = [program._cache_size() for program in counted]
    assert_equal(run(slots=4), whole)
    grown = [program._cache_size() - size for program, size in zip(counted, before, strict=True)]
    prompts_at_a_time, prompt_lengths, sizes = 3, 2, 3  # 1 2 4; 32 64; 4 2 1
    bounds = [prompts_at_a_time * prompt_lengths, sizes, 1, sizes, sizes - 1]
    assert all(count <= bound for count, bound in zip(grown, bounds, strict=True)), grown
    again = [program._cache_size() for program in counted]
    assert_equal(run(slots=4), whole)
    assert [program._cache_size() for program in counted] == again


def test_a_row_ends_with_the_token_that_completes_its_string(run, whole):
    strings = ("UU", "GGG", chr(60 + 40))
    found = run(stop_strings=strings, tokenizer=letters, slots=4)
    cut = 0
    for row in range(21):
        text = letters(whole.tokens[row, : whole.mask[row].sum()].tolist())
        ends = [text.index(string) + len(string) for string in strings if string in text]
        length = min([*ends, len(text)])
        cut += bool(ends)
        assert letters(found.tokens[row, : found.mask[row].sum()].tolist()) == text[:length]
        assert found.mask[row].tolist() == [1] * length + [0] * (40 - length)
        np.testing.assert_allclose(found.logps[row], np.where(found.mask[row], whole.logps[row], 0), rtol=0, atol=1e-5)
        assert bool(found.ended[row]) == (bool(ends) or bool(whole.ended[row]))
    assert cut >= 3


def test_a_string_that_spans_two_looks_of_the_host_is_found(run, whole):
    row = next(r for r in range(21) if whole.mask[r].sum() == 40)
    text = letters(whole.tokens[row].tolist())
    across = text[queue.STEPS - 1 : queue.STEPS + 4]
    found = run(stop_strings=[across], tokenizer=letters, slots=4)
    assert found.mask[row].sum() == text.index(across) + len(across)
    assert found.ended[row]


def test_strings_that_a_tokenizer_cannot_write_are_refused():
    tok = tokenizer.load(inference.embedded_base())
    find = stops.finder(["the", " is"], tok)
    ids = tok.encode("what the cat is").ids
    text = [tok.decode(ids[:n], skip_special=False) for n in range(len(ids) + 1)]
    assert find(ids, 0) == next(n for n, t in enumerate(text) if "the" in t or " is" in t)
    assert find(ids[:1], 0) is None
    with pytest.raises(UserError, match=r"stop string '.+': this tokenizer cannot write it"):
        stops.finder(["the", "\N{SNOWMAN}\N{GREEK SMALL LETTER ALPHA}"], Upper())


class Upper:
    """A tokenizer that knows capital letters alone."""

    def encode(self, text):
        return tokenizer.Encoding([ord(c) for c in text.upper()], [])

    def decode(self, ids, *, skip_special):  # noqa: ARG002
        return "".join(map(chr, ids))
