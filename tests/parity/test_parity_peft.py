"""Live against PEFT: adapters go both ways, attached and merged, with PEFT's own names, shapes and numbers."""

import warnings

from golden import cases
import jax
import numpy as np
from parity import peers
import peft as their_peft
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax.adapters import attach, init, lora, merge
from ftjax.checkpoint import hf_import, peft
from ftjax.models import decoder

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
logits = jax.jit(decoder.logits, static_argnums=2)
ALL = cases.ADAPTERS | cases.MORE_ADAPTERS


def ours(model, config):
    given = cases.inputs()
    return np.asarray(logits(model, given["packed"], config, None, given["packed_segments"]))


def theirs(model):
    return peers.logits(model, cases.inputs())["packed_logits"]


@pytest.fixture
def pair(tmp_path):
    """Returns (a transformers model, our config and base of it)."""

    def make(base, seed=5):
        made = peers.model(cases.MODELS[base], seed=seed)
        made.save_pretrained(tmp_path / "base")
        return made, *hf_import.load(tmp_path / "base")

    return make


@pytest.mark.parametrize("case", ALL)
def test_an_adapter_of_peft_computes_the_same_here_attached_and_merged(case, pair, tmp_path):
    base_case, arguments = ALL[case]
    made, config, base = pair(base_case)
    wrapped = peers.adapted(made, arguments, seed=6)
    wrapped.save_pretrained(tmp_path / "adapter")
    adapters = peft.load(tmp_path / "adapter", base, config)
    np.testing.assert_allclose(ours(attach.attach(base, adapters), config), theirs(wrapped), rtol=0, atol=3e-5)
    merged = peers.merged(wrapped, case, cases.inputs())["packed_logits"]
    np.testing.assert_allclose(ours(merge.merge(base, adapters), config), merged, rtol=0, atol=3e-5)


@pytest.mark.parametrize("case", ALL)
def test_an_adapter_of_ours_computes_the_same_in_peft_without_a_warning(case, pair, tmp_path):
    base_case, arguments = ALL[case]
    made, config, base = pair(base_case)
    first = peers.adapted(peers.model(cases.MODELS[base_case], seed=5), arguments, seed=6)
    first.save_pretrained(tmp_path / "first")
    adapters = peft.load(tmp_path / "first", base, config)
    rslora = arguments.get("use_rslora", False)
    peft.save(tmp_path / "adapter", adapters, config, str(tmp_path / "base"), rslora=rslora)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = their_peft.PeftModel.from_pretrained(made, tmp_path / "adapter").eval()
    said = [str(w.message) for w in caught]
    said = [text for text in said if "adapter" in text or "unexpected" in text.lower() or "missing" in text.lower()]
    assert not [text for text in said if "tied layer is part of the adapter" not in text]  # of the base, not the file
    np.testing.assert_allclose(theirs(loaded), ours(attach.attach(base, adapters), config), rtol=0, atol=3e-5)
    written = safetensors_numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for peer in (loaded, first):
        state = their_peft.get_peft_model_state_dict(peer, save_embedding_layers=False)
        drawn = case == "vera_some_layers" and peer is first  # its matrices were left out, ours never are
        names = {n: v.shape for n, v in written.items() if not (drawn and "." not in n.removeprefix("base_model."))}
        assert names == {n: tuple(v.shape) for n, v in state.items()}
    for name, value in their_peft.get_peft_model_state_dict(loaded, save_embedding_layers=False).items():
        np.testing.assert_array_equal(written[name], value.detach().numpy())


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_an_adapter_that_was_never_trained_changes_nothing_there(targets, pair, tmp_path):
    made, config, base = pair("qwen2_plain")
    before = theirs(made)
    make = lambda key, weight, rank, alpha: lora.init_one(
        key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=False
    )
    fresh = init.init(
        jax.random.key(0), base, make=make, targets=targets, rank=4, alpha=8, rank_pattern={}, alpha_pattern={}
    )
    peft.save(tmp_path / "adapter", fresh, config, None)
    loaded = their_peft.PeftModel.from_pretrained(made, tmp_path / "adapter").eval()
    np.testing.assert_array_equal(theirs(loaded), before)
    reference = their_peft.get_peft_model(
        peers.model(cases.MODELS["qwen2_plain"]),
        their_peft.LoraConfig(r=4, target_modules=list(targets) if isinstance(targets, tuple) else targets),
    )
    wanted = their_peft.get_peft_model_state_dict(reference)
    written = safetensors_numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {n: v.shape for n, v in written.items()} == {n: tuple(v.shape) for n, v in wanted.items()}


@pytest.mark.parametrize("case", cases.ADAPTERS)
def test_golden_files_are_what_peft_says_today(case):
    base_case, arguments = cases.ADAPTERS[case]
    wrapped = peers.adapted(peers.model(cases.MODELS[base_case]), arguments)
    golden = cases.read(case)
    found = peers.logits(wrapped, cases.inputs())
    for name, value in found.items():
        np.testing.assert_allclose(value, golden[f"attached_{name}"], rtol=0, atol=2e-5)
