"""PEFT folders of all types, and of what is particular about them: layers, fused modules, tables, refusals."""

import dataclasses
import json

from golden import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ftjax import tree
from ftjax.adapters import adapter, dora, ia3, init, lora, tables, vera
from ftjax.checkpoint import hf_import, peft, peft_layers
from ftjax.errors import UserError
from ftjax.models import params

rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return hf_import.load(cases.unpack("llama_plain", tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return hf_import.load(cases.unpack("qwen2_plain", tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def phi(tmp_path_factory):
    return hf_import.load(cases.unpack("phi3_window", tmp_path_factory.mktemp("phi")))


def low(weight, rank=2, scale=1.0, **changes):
    *batch, rows, columns = weight.shape
    return lora.LoRA(a=draw(*batch, rows, rank), b=draw(*batch, rank, columns), scale=scale, dropout=0.0, **changes)


def at(base, **leaves):
    """An adapter tree with these leaves; names of the blocks' weights, or of tables."""
    hollow = jax.tree.map(lambda _: None, base)
    top = {name: leaf for name, leaf in leaves.items() if name in ("embed_tokens", "lm_head")}
    blocks = {name: leaf for name, leaf in leaves.items() if name not in top}
    return hollow.replace(blocks=hollow.blocks.replace(**blocks), **top)


def facts(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def tensors(folder):
    return safetensors_numpy.load_file(folder / "adapter_model.safetensors")


def edit(folder, **keys):
    (folder / "adapter_config.json").write_text(json.dumps(facts(folder) | keys))


def there_and_back(folder, adapters, config, base):
    peft.save(folder, adapters, config, None)
    again = peft.load(folder, base, config)
    assert jax.tree.structure(again) == jax.tree.structure(adapters)
    jax.tree.map(np.testing.assert_array_equal, again, adapters)
    return again


def test_types_with_absent_layers_and_unequal_ranks_come_back_as_they_were():
    for make, name in (
        (lambda r: dora.DoRA(a=draw(5, r), b=draw(r, 4), m=abs(draw(4)), scale=2.0, dropout=0.0), "DoRA"),
        (lambda r: lora.LoRA(a=draw(5, r), b=draw(r, 4), scale=2.0, dropout=0.0), "LoRA"),
        (lambda _: ia3.IA3(l=draw(4), feedforward=False), "IA3"),
    ):
        found = {(0,): make(3), (2,): make(2)}
        split = peft_layers.split(peft_layers.on_host(peft_layers.stack(found, (3,))))
        assert split.keys() == found.keys(), name
        for index in found:
            jax.tree.map(np.testing.assert_array_equal, split[index], found[index])


def test_a_layer_without_a_dora_or_an_ia3_is_left_alone_and_gets_no_gradient():
    weight, x, y = jnp.asarray(draw(5, 4)), jnp.asarray(draw(3, 5)), jnp.asarray(draw(3, 4))
    none = dora.DoRA(a=jnp.zeros((5, 2)), b=jnp.zeros((2, 4)), m=jnp.zeros(4), scale=2.0, dropout=0.0)
    for node in (none, ia3.IA3(l=jnp.zeros(4), feedforward=False)):
        np.testing.assert_array_equal(node.forward(x, y, weight, None), y)
        np.testing.assert_array_equal(node.merge(weight), weight)
        grads = jax.jit(jax.grad(lambda node: jnp.sum(node.forward(x, y, weight, None))))(node)
        jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), grads)


def test_a_fused_module_is_one_a_side_by_side_or_blocks_and_reads_back_as_the_same_function(phi, tmp_path):
    config, base = phi
    names = ("q_proj", "k_proj", "v_proj")
    weights = {name: getattr(base.blocks, name) for name in names}
    first = low(weights["q_proj"], rank=2)
    shared = {n: first.replace(b=draw(*w.shape[:1], 2, w.shape[2])) for n, w in weights.items()}
    there_and_back(tmp_path / "shared", at(base, **shared), config, base)
    assert facts(tmp_path / "shared")["r"] == 2
    assert facts(tmp_path / "shared")["target_modules"] == ["qkv_proj"]
    own = {n: low(weights[n], rank=r, scale=s) for n, r, s in (("q_proj", 2, 1.0), ("v_proj", 3, 0.5))}
    peft.save(tmp_path / "own", at(base, **own), config, None)
    again = peft.load(tmp_path / "own", base, config).blocks
    assert facts(tmp_path / "own")["r"] == 5
    for name in names:
        wanted = own[name].delta() if name in own else jnp.zeros_like(weights[name])
        np.testing.assert_allclose(getattr(again, name).delta(), wanted, atol=1e-5)


def test_parts_of_a_fused_module_that_peft_has_no_form_for_are_refused(phi, tmp_path):
    config, base = phi
    weight = base.blocks.q_proj
    node = low(weight)
    part = dora.DoRA(a=node.a, b=node.b, m=abs(draw(3, weight.shape[2])), scale=1.0, dropout=0.0)
    with pytest.raises(UserError, match=r"qkv_proj: DoRA is on a part of it"):
        peft.save(tmp_path / "out", at(base, q_proj=part), config, None)


def test_vera_is_written_with_its_matrices_and_drawn_again_where_peft_left_them_out(llama, tmp_path):
    config, base = llama
    a, b = vera.projections(3, 4, 44, 32)
    node = lambda weight: vera.VeRA(
        a=jnp.asarray(a[: weight.shape[1]]), b=jnp.asarray(b[:, : weight.shape[2]]), lambda_d=jnp.asarray(draw(3, 4)),
        lambda_b=jnp.asarray(draw(3, weight.shape[2])), dropout=0.0,
    )  # fmt: skip
    adapters = at(base, q_proj=node(base.blocks.q_proj), down_proj=node(base.blocks.down_proj))
    there_and_back(tmp_path / "out", adapters, config, base)
    kept = {name: value for name, value in tensors(tmp_path / "out").items() if "vera_lambda" in name}
    safetensors_numpy.save_file(kept, tmp_path / "out" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"base_model\.vera_A is missing, though save_projection is true"):
        peft.load(tmp_path / "out", base, config)
    edit(tmp_path / "out", save_projection=False, projection_prng_key=3)
    jax.tree.map(np.testing.assert_array_equal, peft.load(tmp_path / "out", base, config), adapters)
    other = adapters.blocks.down_proj.replace(a=jnp.asarray(draw(44, 4)))
    with pytest.raises(UserError, match="do not share one pair"):
        peft.save(tmp_path / "apart", at(base, q_proj=adapters.blocks.q_proj, down_proj=other), config, None)


@pytest.mark.parametrize("tied", [False, True])
def test_tables_come_back_as_they_were_from_one_weight_or_two(tied, llama, qwen, tmp_path):
    config, base = qwen if tied else llama
    table = jnp.asarray(draw(61, 32))
    rows = tables.TokenRows(values=jnp.asarray(draw(2, 32)), indices=(9, 4), on_head=False, tied=tied)
    head = tables.TokenRows(values=jnp.asarray(draw(1, 32)), indices=(5,), on_head=True, tied=False)
    found = {
        "both copied": {"embed_tokens": table, "lm_head": table.T + 1},
        "the lookup copied": {"embed_tokens": tables.Copy(weight=table) if tied else table},
        "the head copied": {"lm_head": table.T},
        "rows": {"embed_tokens": rows},
        "other rows": {"embed_tokens": rows.replace(tied=False), "lm_head": head},
        "low rank": {"embed_tokens": low(base.embed_tokens)},
        "low rank on both": {"embed_tokens": low(base.embed_tokens), "lm_head": low(base.embed_tokens.T)},
    }
    if tied:
        found |= {"one copy": {"embed_tokens": table}}
        found |= {"one low rank": {"embed_tokens": low(base.embed_tokens, tied=True)}}
    for number, (name, leaves) in enumerate(found.items()):
        there_and_back(tmp_path / str(number), at(base, q_proj=low(base.blocks.q_proj), **leaves), config, base)
        ties = facts(tmp_path / str(number)).get("ensure_weight_tying", False)
        assert ties == name.startswith("one "), name


def test_copies_that_should_be_tied_and_differ_are_refused(qwen, tmp_path):
    config, base = qwen
    for number, leaf in enumerate((jnp.asarray(draw(61, 32)), low(base.embed_tokens, tied=True))):
        folder = tmp_path / str(number)
        peft.save(folder, at(base, q_proj=low(base.blocks.q_proj), embed_tokens=leaf), config, None)
        changed = {n: v + 1 if ".lm_head." in n else v for n, v in tensors(folder).items()}
        safetensors_numpy.save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(UserError, match=r"lm_head.* differs from what it is tied to"):
            peft.load(folder, base, config)


def test_what_has_no_peft_form_is_refused_by_name(qwen, tmp_path):
    config, base = qwen
    q = low(base.blocks.q_proj)
    scales = ia3.IA3(l=jnp.ones((3, 16)), feedforward=False)
    rows = tables.TokenRows(values=draw(1, 32), indices=(1,), on_head=False, tied=True)
    for leaves, match in (
        ({"q_proj": q, "v_proj": scales}, "IA3 and LoRA, not one type"),
        ({"q_proj": q, "k_proj": low(base.blocks.k_proj).replace(dropout=0.5)}, "one dropout for all"),
        ({"embed_tokens": rows}, "weights, not one type"),
        ({"v_proj": scales, "embed_tokens": rows}, "IA3 with rows of tokens"),
        ({"v_proj": scales.replace(l=jnp.ones((3, 16)).at[1, 3].set(0.0))}, "exactly 0 in layer"),
        ({"q_proj": q, "embed_tokens": rows.replace(tied=False)}, "rows of tokens of the lookup alone"),
        ({"q_proj": q, "k_proj": base.blocks.k_proj}, "PEFT saves modules whole, and .*k_proj.bias does not train"),
    ):
        with pytest.raises(UserError, match=match):
            peft.save(tmp_path / "out", at(base, **leaves), config, None)
    assert not (tmp_path / "out").exists()


def test_adapters_on_experts_have_no_peft_form(tiny_config, tmp_path):
    config = tiny_config(family="mixtral", tie_embeddings=False, n_experts=4, top_k=2, normalize_top_k=True)
    base = params.abstract(config, "float32")
    with pytest.raises(UserError, match=r"blocks\.up_proj: PEFT has no module for it \(experts, routers\)"):
        peft.save(tmp_path / "out", at(base, up_proj=low(base.blocks.up_proj)), config, None)


def test_an_adapter_for_another_base_says_what_differs(llama, tmp_path):
    config, base = llama
    deep = dataclasses.replace(config, n_layers=5, windows=(0,) * 5)
    wide = dataclasses.replace(config, d_ff=80)
    for other, name, match in (
        (deep, "q_proj", r"it has tensors for layer 4, and this one has 3 layers"),
        (wide, "up_proj", r"this module writes 80 numbers; in this one it writes 44"),
    ):
        theirs = params.abstract(other, "float32")
        adapters = at(theirs, **{name: low(getattr(theirs.blocks, name))})
        peft.save(tmp_path / name, adapters, other, None)
        with pytest.raises(UserError, match=match):
            peft.load(tmp_path / name, base, config)


def test_pissa_is_written_as_a_lora_of_twice_the_rank_on_the_base_as_it_is(llama, tmp_path):
    from ftjax.adapters import pissa

    config, base = llama
    make = lambda key, weight, rank, alpha: pissa.init_one(
        key, weight, rank=rank, alpha=alpha, dropout=0.0, rslora=True
    )
    made = init.init(
        jax.random.key(0), base, make=make, targets=("v_proj",), rank=4, alpha=6.0, rank_pattern={}, alpha_pattern={}
    )
    peft.save(tmp_path / "out", made, config, None, rslora=True)
    said = facts(tmp_path / "out")
    assert (said["r"], said["use_rslora"], said["init_lora_weights"]) == (8, True, True)
    np.testing.assert_allclose(said["lora_alpha"] / 8**0.5, 6.0 / 4**0.5)
    again = peft.load(tmp_path / "out", base, config)
    np.testing.assert_allclose(again.blocks.v_proj.delta(), 0, atol=1e-6)
    assert tree.count(adapter.trained(made)) * 2 == tree.count(again)
