"""The bridge to lm-evaluation-harness on a tiny base: what requests become, and a task from end to end."""

import json

import numpy as np
import pytest

from ftjax import inference
from ftjax.data import template
from ftjax.errors import UserError
from ftjax.evals import continuations, harness

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance


@pytest.fixture(scope="module")
def model(tiny_base):
    return inference.load(str(tiny_base), adapter=None, template_name=None, dtype="float32")


@pytest.fixture(scope="module")
def lm(model):
    return harness.bridge(
        model.params,
        model.config,
        model.tokenizer,
        chat=model.template,
        stop_ids=model.stop_ids,
        length=64,
        rows=2,
        seed=0,
    )


def asked(kind, *arguments):
    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def test_spaces_between_context_and_continuation_belong_to_the_continuation(lm, model):
    encode = lambda text: model.tokenizer.encode(text).ids
    found = lm.loglikelihood(asked("loglikelihood", ("Say red", " lamp"), ("Say red ", "lamp"), ("", "red boat")))
    assert found[0] == found[1]
    whole, context = encode("Say red lamp"), encode("Say red")
    score = lambda *pair: continuations.score(model.params, model.config, [pair], length=64, rows=2)[0]
    assert found[0] == pytest.approx(tuple(score(context, whole[len(context) :])))
    assert found[2] == pytest.approx(tuple(score([lm.prefix_token_id], encode("red boat"))))


def test_a_text_longer_than_the_context_rolls_and_every_token_counts_once(lm, model):
    text = "red green blue lamp rope boat bread tree " * 40
    ids = model.tokenizer.encode(text).ids
    assert len(ids) > model.config.context
    (found,) = lm.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    width, total, at = model.config.context, 0.0, 0
    sequence = [lm.prefix_token_id, *ids]
    while at < len(ids):
        end = min(at + width, len(ids))
        context = sequence[max(0, end - width) : at + 1]
        total += continuations.score(model.params, model.config, [(context, ids[at:end])], length=64, rows=2)[0].logp
        at = end
    assert found == pytest.approx(total, rel=1e-6)


def test_answers_end_before_the_first_of_the_texts_that_end_them(lm, model):
    prompt = "Say red."
    plain = model.complete(
        [model.tokenizer.encode(prompt).ids], max_new_tokens=12, temperature=0.0, top_k=0, top_p=1.0, seed=0
    )
    settings = {"max_gen_toks": 12, "do_sample": False}
    whole, *_ = lm.generate_until(asked("generate_until", *[(prompt, dict(settings))] * 3))
    assert whole.strip() == plain[0]
    stop = whole[len(whole) // 2]
    (cut,) = lm.generate_until(asked("generate_until", (prompt, {**settings, "until": ["never", stop]})))
    assert cut == whole.split(stop)[0]


def test_what_we_cannot_do_is_refused_by_name(lm):
    with pytest.raises(UserError, match="asks for num_beams"):
        lm.generate_until(asked("generate_until", ("Say red.", {"max_gen_toks": 4, "num_beams": 4})))
    with pytest.raises(UserError, match="no room in a context of 128"):
        lm.generate_until(asked("generate_until", ("Say red.", {"max_gen_toks": 128})))


def test_a_chat_is_what_the_models_template_makes_of_it(lm, model):
    chat = [{"role": "user", "content": "Say red."}]
    text = lm.apply_chat_template(chat)
    assert text == template.render(model.template, chat, tools=(), add_generation_prompt=True, variables={}).text
    assert lm.chat_template(True) == model.template.text
    bare = harness.bridge(
        model.params, model.config, model.tokenizer, chat=None, stop_ids=model.stop_ids, length=64, rows=2, seed=0
    )
    with pytest.raises(UserError, match="has no chat template"):
        bare.apply_chat_template(chat)


@pytest.mark.filterwarnings("ignore")  # of the harness and of what it imports
def test_a_task_of_ones_own_runs_from_end_to_end(lm, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval import tasks

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = [{"question": f"Say {word}.", "choices": ["red", "lamp"], "gold": n % 2} for n, word in enumerate("abcd")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}, cache_dir: {tmp_path}/cache}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    known = tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=["own"], task_manager=known, bootstrap_iters=0)
    asks = [(row["question"], f" {choice}") for row in rows for choice in row["choices"]]
    logps = np.array([one[0] for one in lm.loglikelihood(asked("loglikelihood", *asks))]).reshape(4, 2)
    wanted = np.mean(logps.argmax(1) == [row["gold"] for row in rows])
    assert found["results"]["own"]["acc,none"] == pytest.approx(wanted)
