"""Severity for every test: 8 virtual devices, exact matmuls, no silent broadcasting, no network, no prompts."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="disabled", WANDB_SILENT="true")

import jax
import pytest

pytest_plugins = ["tests.bases", "tests.cases", "tests.preference_cases", "tests.rl_cases"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(ROOT / "build" / "xla_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, never part of the project; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder


@pytest.fixture
def tmp_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for tokenised data."""
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture(scope="session")
def tiny_config():
    """Returns a function that gives a small decoder's config: 3 layers, grouped queries, every field replaceable."""
    import dataclasses

    from ftjax.models import config as model_config

    base = model_config.ModelConfig(
        family="llama",
        vocab_size=61,
        d_model=32,
        d_ff=64,
        n_layers=3,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        rope=model_config.Rope("default", 10000.0),
        norm_eps=1e-5,
        max_position=512,
        tie_embeddings=True,
        activation="silu",
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
        windows=(0, 0, 0),
    )
    return lambda **changes: dataclasses.replace(base, **changes)


@pytest.fixture(scope="session")
def tiny_params(tiny_config):
    """Returns the weights of `tiny_config()`."""
    from ftjax.models import params

    return params.init(jax.random.key(0), tiny_config(), "float32")


@pytest.fixture(scope="session")
def tiny_batch():
    """Returns a packed batch of 8 rows of 48 tokens with two or three documents and padding."""
    import numpy as np

    from ftjax.data import batch, encode

    rng = np.random.default_rng(0)

    def example(length):
        mask = np.ones(length, np.uint8)
        mask[: length // 3] = 0
        return encode.Example(rng.integers(1, 61, length).astype(np.int32), mask, "test:1")

    rows = [[example(int(n)) for n in rng.integers(6, 16, rng.integers(2, 4))] for _ in range(8)]
    return batch.pack_rows(rows, length=48)
