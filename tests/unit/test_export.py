"""What a run or adapters made, written for others: combinations, quantised bases, templates, and what is refused."""

import json
from pathlib import Path
import runpy
import shutil

import jax
import numpy as np
import pytest

from ftjax import disk, export, inference
from ftjax.adapters import arithmetic, attach, init, lora, merge
from ftjax.checkpoint import hf_import, peft
from ftjax.errors import UserError
from ftjax.models import decoder
from tests import bases

NO_END = bases.TEMPLATE.replace("<|im_end|>\n", "<|pad|>\n")


@pytest.fixture(scope="session")
def script():
    """The functions of scripts/export.py."""
    return runpy.run_path(str(bases.ROOT / "scripts" / "export.py"))


@pytest.fixture(scope="session")
def loaded(tiny_base):
    return hf_import.load(tiny_base)


def write_adapter(folder, base_dir, seed, rank=2):
    config, base = hf_import.load(base_dir)
    make = lambda key, w, rank, alpha: lora.init_one(key, w, rank=rank, alpha=alpha, dropout=0.0, rslora=False)
    fresh = init.init(
        jax.random.key(seed), base, make=make, targets=("q_proj", "up_proj"), rank=rank, alpha=4.0,
        rank_pattern={}, alpha_pattern={},
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    adapters = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), fresh)
    peft.save(folder, adapters, config, base_name=str(base_dir))
    return folder


@pytest.fixture(scope="session")
def two(tmp_path_factory, tiny_base):
    """Two PEFT folders of the tiny base."""
    root = tmp_path_factory.mktemp("adapters")
    return [write_adapter(root / name, tiny_base, seed, rank) for seed, (name, rank) in enumerate([("a", 2), ("b", 3)])]


def same(folder, wanted, atol=1e-6):
    _, found = hf_import.load(folder)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), found, wanted)


def test_a_combination_is_merged_as_the_weighted_sum(script, two, loaded, tmp_path, capsys):
    config, base = loaded
    spec = f"{two[0]}=0.7,{two[1]}=-0.3"
    assert script["main"](["--combine", spec, "--format", "merged", "--out", str(tmp_path / "out")]) == 0
    trees = [peft.load(folder, base, config) for folder in two]
    same(tmp_path / "out", merge.merge(base, arithmetic.weighted_sum(trees, [0.7, -0.3])))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"sum of 0.7 x {two[0]} + -0.3 x {two[1]}" in card
    assert "scripts/export.py --combine" in card
    assert capsys.readouterr().out == f"merged written to {tmp_path / 'out'}\n"


def test_a_combination_cut_to_a_rank_says_what_it_lost(script, two, loaded, tmp_path, capsys):
    config, base = loaded
    spec, out = f"{two[0]}=0.5,{two[1]}=0.5", tmp_path / "out"
    assert script["main"](["--combine", spec, "--rank", "2", "--format", "peft", "--out", str(out)]) == 0
    trees = [peft.load(folder, base, config) for folder in two]
    cut, errors = arithmetic.truncate(arithmetic.weighted_sum(trees, [0.5, 0.5]), 2)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), peft.load(out, base, config), cut)
    said = capsys.readouterr().out
    assert f"relative error {arithmetic.total_error(cut, errors):.3g} (Frobenius)" in said
    assert f"at most {max(errors.values()):.3g}" in said
    assert "relative error" in (out / "README.md").read_text()
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 2


def test_the_linear_combination_keeps_the_rank(two, loaded, tmp_path):
    config, base = loaded
    asked = export.combined(f"{two[0]}=0.5,{two[0]}=1", model=None, template_name=None, rank=None, combination="linear")
    export.peft(asked, tmp_path / "out", command="c", say=lambda _: None)
    made = peft.load(tmp_path / "out", base, config)
    assert made.blocks.q_proj.a.shape[-1] == 2
    one = peft.load(two[0], base, config)
    wanted = arithmetic.linear([one, one], [0.5, 1.0])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), merge.merge(base, made), merge.merge(base, wanted)
    )


def test_adapters_of_different_bases_have_no_sum_and_copies_of_one_base_do(two, tiny_base, tmp_path):
    other = bases.write_base(tmp_path / "other", seed=1)
    stranger = write_adapter(tmp_path / "stranger", other, 0)
    combine = lambda folder, **keys: export.combined(
        f"{two[0]}=1,{folder}=1", **({"model": None, "template_name": None, "rank": None, "combination": "sum"} | keys)
    )
    with pytest.raises(UserError, match=r"stranger was trained on .*other, not on .*tiny; adapters of different bases"):
        combine(stranger)
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    assert combine(write_adapter(tmp_path / "friend", copy, 0)).base == tiny_base
    facts = json.loads((stranger / "adapter_config.json").read_text())
    (stranger / "adapter_config.json").write_text(json.dumps(facts | {"base_model_name_or_path": "org/model"}))
    with pytest.raises(UserError, match="names its base as 'org/model', which is not here; give --model"):
        combine(stranger)
    assert combine(stranger, model=str(tiny_base)).base == tiny_base, "what is not here cannot be compared"


@pytest.fixture
def quantised(finished, tmp_path):
    """A finished run as if its base had been in four bits."""
    run = shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    config = json.loads((run / "config.json").read_text())
    config["quant"] = {"format": "nf4", "leaves": r"blocks\.\w+_proj", "group": 32}
    (run / "config.json").write_text(json.dumps(config))
    return run


@pytest.mark.parametrize("choice", [None, "original"])
def test_the_adapter_of_a_quantised_base_goes_where_it_is_told_to(
    script, quantised, tiny_base, tmp_path, capsys, choice
):
    words = ["--run", str(quantised), "--format", "merged", "--out", str(tmp_path / "out")]
    assert script["main"]([*words, *(["--base", choice] if choice else [])]) == 0
    quants = {"original": ("none", 0)}
    quant, group = quants.get(choice, ("nf4", 32))
    config, base = hf_import.load(tiny_base, quant, group=group)
    adapters = peft.load(quantised / "adapter", base, config)
    same(tmp_path / "out", merge.merge(base, adapters))
    other = hf_import.load(
        tiny_base, *(("nf4",) if choice == "original" else ()), group=32 if choice == "original" else 0
    )
    tokens, segments = export.probe_tokens(quantised, config, *words_of(tiny_base))
    run = jax.jit(decoder.logits, static_argnums=2)
    logits = lambda base: np.asarray(run(attach.attach(base, adapters), tokens, config, None, segments))
    gap = np.abs((logits(base) - logits(other[1])) * (segments[..., None] > 0)).max()
    said = capsys.readouterr().out
    assert f"merging into the {choice or 'dequant'} weights" in said
    assert float(said.partition("differ by at most ")[2].split()[0]) == pytest.approx(gap, rel=2e-2)
    assert gap > 1e-3
    assert f"{choice or 'dequant'} weights of the nf4 base" in (tmp_path / "out" / "README.md").read_text()


def words_of(base_dir):
    tok = export.tokenizer.load(base_dir)
    return tok, export.template.load(None, tok)


def test_the_logits_are_compared_on_held_out_rows_of_the_run(finished, loaded, tiny_base):
    config, _ = loaded
    tokens, segments = export.probe_tokens(finished.folder, config, *words_of(tiny_base))
    row = json.loads((finished.folder / "answers.jsonl").read_text().splitlines()[0])
    text = words_of(tiny_base)[0].decode(tokens[0][segments[0] > 0], skip_special=False)
    assert row["prompt"] in text
    assert text.endswith(row["reference"])
    random, whole = export.probe_tokens(None, config, *words_of(tiny_base))
    assert whole.all()
    assert len(set(random.ravel())) > 50


def test_the_difference_of_two_models_is_an_adapter(script, two, loaded, tiny_base, tmp_path, capsys):
    config, base = loaded
    asked = export.of_model(str(tiny_base), adapter=str(two[0]), template_name=None, rank=None)
    quiet = {"command": "c", "say": lambda _: None}
    export.merged(asked, tmp_path / "tuned", dtype=None, base=None, max_shard_bytes=10**9, **quiet)
    words = ["--model", str(tmp_path / "tuned"), "--minus", str(tiny_base), "--format", "peft"]
    assert script["main"]([*words, "--rank", "2", "--out", str(tmp_path / "out")]) == 0
    assert "rank 2: relative error" in capsys.readouterr().out
    made = peft.load(tmp_path / "out", base, config)
    same(tmp_path / "tuned", merge.merge(base, made), atol=1e-5)
    with pytest.raises(UserError, match="say what it is to be cut to with --rank"):
        script["main"]([*words, "--out", str(tmp_path / "more")])
    with pytest.raises(UserError, match="have the same projections"):
        script["main"](["--model", str(tiny_base), *words[2:], "--rank", "2", "--out", str(tmp_path / "more")])


def test_a_changed_template_goes_out_with_the_tokens_that_end_its_turns(tmp_path):
    """The base ends texts with one token; the template that it is trained with ends turns with another."""
    base_dir = bases.write_base(tmp_path / "base", template=NO_END)
    about = json.loads((base_dir / "tokenizer_config.json").read_text()) | {"eos_token": "<|pad|>"}
    (base_dir / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "mine.jinja").write_text(bases.TEMPLATE)
    adapter = write_adapter(tmp_path / "adapter", base_dir, 0)
    asked = export.of_model(str(base_dir), adapter=str(adapter), template_name=str(tmp_path / "mine.jinja"), rank=None)
    quiet = {"command": "c", "say": lambda _: None}
    export.merged(asked, tmp_path / "merged", dtype="bfloat16", base=None, max_shard_bytes=20_000, **quiet)
    export.peft(asked, tmp_path / "peft", **quiet)
    stops = json.loads((tmp_path / "merged" / "generation_config.json").read_text())["eos_token_id"]
    assert set(stops) == {0, 2}
    assert set(
        inference.load(str(tmp_path / "merged"), adapter=None, template_name=None, dtype="float32").stop_ids
    ) == {*stops}
    for kind in ("merged", "peft"):
        assert (tmp_path / kind / "chat_template.jinja").read_text() == bases.TEMPLATE
        assert (tmp_path / kind / "tokenizer.json").read_bytes() == (base_dir / "tokenizer.json").read_bytes()
    assert len(list((tmp_path / "merged").glob("model-*-of-*.safetensors"))) > 2
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    config, base = hf_import.load(base_dir)
    assert peft.load(tmp_path / "peft", base, config).blocks.q_proj is not None


def test_an_adapter_whose_template_is_the_bases_own_goes_out_without_a_tokenizer(finished, tmp_path):
    export.peft(export.of_run(finished.folder, rank=None), tmp_path / "out", command="c", say=lambda _: None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(peft.FILES)
    for name in peft.FILES:
        assert (tmp_path / "out" / name).read_bytes() == (finished.folder / "adapter" / name).read_bytes()


def test_the_card_of_a_run_has_base_data_metrics_and_command(finished, tmp_path):
    asked = export.of_run(finished.folder, rank=None)
    export.merged(
        asked, tmp_path / "out", dtype=None, base=None, max_shard_bytes=10**9, command="c", say=lambda _: None
    )
    text = (tmp_path / "out" / "README.md").read_text()
    read = lambda name: json.loads((finished.folder / f"{name}.json").read_text())
    for fact in (read("base")["path"], read("base")["hash"], read("data")["hash"], "scripts/train.py"):
        assert fact in text
    before, after = (finished.summary[when]["eval_loss"] for when in ("before", "after"))
    assert f"| eval_loss | {before:.4g} | {after:.4g} |" in text


def test_a_tokenizer_larger_than_the_embedding_is_refused(script, tmp_path):
    base_dir = bases.write_base(tmp_path / "base", extra_tokens=3)
    words = ["--model", str(base_dir), "--format", "merged", "--out", str(tmp_path / "out")]
    with pytest.raises(
        UserError, match=r"the tokenizer has ids up to \d+ \('<more2>'\), but the model's vocabulary has"
    ):
        script["main"](words)
    assert not (tmp_path / "out").exists()


def test_a_disk_without_room_is_refused(script, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda _: 10_000)
    with pytest.raises(UserError, match=r"out: needs [\d,]+ bytes, and 10,000 are free on that disk"):
        script["main"](["--run", str(finished.folder), "--format", "merged", "--out", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


MERGED, PEFT = ["--format", "merged"], ["--format", "peft"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (MERGED, "give one of --run, --combine and --model"),
        (["--run", "{run}", "--model", "base", *MERGED], "--run goes alone"),
        (["--combine", "{run}=1", "--adapter", "x", *MERGED], "--adapter goes with --model"),
        (["--run", "{run}", "--minus", "base", *MERGED], "--minus goes with --model"),
        (["--run", "{run}", "--template", "chatml", *MERGED], "--template goes with --model or --combine"),
        (["--run", "{run}", "--combination", "linear", *MERGED], "--combination goes with --combine"),
        (["--run", "{run}", "--rank", "0", *MERGED], "--rank 0 must be at least 1"),
        (["--run", "{run}", "--dtype", "bfloat16", *PEFT], "--dtype goes with --format merged"),
        (["--run", "{run}", "--base", "dequant", *PEFT], "--base goes with --format merged"),
        (["--run", "{run}", "--base", "dequant", *MERGED], "this one has its base as it is stored"),
        (["--run", "{run}", "--max-shard-size", "4cm", *MERGED], "--max-shard-size '4cm' is no size"),
        (["--run", "{run}", "--max-shard-size", "0GB", *MERGED], "--max-shard-size '0GB' is no size"),
        (["--model", "{base}", *PEFT], "is a whole model, so there is no adapter; use --format merged"),
        (["--model", "{base}", "--rank", "3", *MERGED], "--rank 3 cuts an adapter"),
        (["--model", "{base}", "--adapter", "nowhere", *MERGED], "nowhere is neither a run nor a PEFT folder"),
        (["--combine", "{run}=x", *MERGED], "'{run}=x' must be DIR=WEIGHT with a number"),
        (["--combine", "{run}", *MERGED], "'{run}' must be DIR=WEIGHT"),
        (["--combine", "{run}=nan", *MERGED], "must be DIR=WEIGHT with a number"),
        (["--combine", "=1", *MERGED], "'=1' must be DIR=WEIGHT"),
        (["--combine", " , ", *MERGED], "names no adapter"),
        (["--combine", "{run}=1,nowhere=2", *MERGED], "nowhere is neither a run nor a PEFT folder"),
        (["--combine", "{run}=0", *MERGED], "every weight is 0"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(script, finished, tiny_base, tmp_path, words, says):
    fill = lambda text: text.format(run=finished.folder, base=tiny_base)
    with pytest.raises(UserError) as raised:
        script["main"]([*map(fill, words), "--out", str(tmp_path / "out")])
    assert fill(says) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_before_anything_is_read(script, finished, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setattr(hf_import, "load", lambda *_, **__: pytest.fail("weights were read"))
    for kind in (MERGED, PEFT):
        with pytest.raises(UserError, match="is not empty"):
            script["main"](["--run", str(finished.folder), *kind, "--out", str(tmp_path)])
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1000", 1000)]
)
def test_sizes_are_read_as_they_are_written(script, text, size):
    assert script["nbytes"](text) == size
