"""A config of one long text: run on a tiny base as a user runs it, and what is refused before weights are read."""

import json
import runpy

import pytest

from ftjax import config as configs
from ftjax import experiment, inference, long_text
from ftjax.errors import UserError
from ftjax.evals import perplexity, sliding
from tests import bases

FILE = f"{bases.ROOT}/configs/eval/text.py"
SMALL = {"text.context": 64, "text.stride": 32}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "long.txt"
    file.write_text(" ".join(bases.WORDS * 12) + " naïve\n", encoding="utf-8")
    return file


@pytest.fixture
def spec(text, tiny_base):
    return f"{FILE}:model={tiny_base},data={text}"


@pytest.fixture
def built(spec):
    return lambda **changes: long_text.build(configs.override(configs.load(spec), SMALL | changes))


def test_a_text_is_measured_by_token_word_and_byte_and_its_protocol_is_told(
    spec, text, tiny_base, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(experiment, "use_compilation_cache", lambda: None)  # the tests have their own
    main = runpy.run_path(f"{bases.ROOT}/scripts/evaluate.py")["main"]
    words = ["--config.text.context=64", "--config.text.stride=32"]
    assert main(["--config", spec, *words, "--workdir", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    model = inference.load(str(tiny_base), adapter=None, template_name=None, dtype="float32")
    whole = text.read_text(encoding="utf-8")
    ids = model.tokenizer.encode(whole).ids
    nats = sliding.measure(model.params, model.config, ids, context=64, stride=32, rows=4)
    mean = nats.total / nats.tokens
    wanted = perplexity.numbers(mean * len(ids), len(ids), perplexity.Units(len(whole.split()), len(whole.encode())))
    assert found["metrics"] == pytest.approx(wanted, rel=1e-6)
    assert found["protocol"] == {
        **{"context": 64, "stride": 32, "least_context": 32, "template": None, "begins_with": None},
        **{"tokens": len(ids), "counted": len(ids) - 1, "words": 97, "bytes": len(whole.encode())},
    }
    out = " ".join(capsys.readouterr().out.split())
    told = (
        "tokens, each once, in windows of 64, 32 apart: from the second one on after 32 or more others; no template, "
    )
    told += "nothing in front"
    assert f"{len(ids) - 1:,} of {len(ids):,} {told}" in out
    assert (tmp_path / "out" / "DONE").exists()


def test_words_and_bytes_are_those_of_the_tokens_that_are_read(built, text):
    whole, cut = built(), built(**{"data.tokens": 20})
    assert cut.ids == whole.ids[:20]
    kept = text.read_text(encoding="utf-8")[: cut.protocol["bytes"]]
    assert inference.tokenizer.load(cut.made.model).encode(kept).ids == cut.ids
    assert cut.protocol["words"] == len(kept.split())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"text.context": 256}, "context is 256, but the model reads 128 tokens; give that or less"),
        ({"text.stride": 65}, "stride is 65, more than config.text.context, 64: .* give a stride from 1 to 64"),
        ({"text.stride": 0}, "stride is 0; it must be at least 1"),
        ({"text.context": 1}, "context is 1; it must be at least 2"),
        ({"text.bos": "always"}, "the tokenizer has no BOS token; set it to never"),
        ({"text.bos": "yes"}, "bos.*'yes'"),
        ({"data.tokens": 1}, "1 tokens; a text of at least 2"),
        ({"data.path": ""}, "data.path is empty; name a text file"),
        ({"data.path": "/none.txt"}, "/none.txt: no such file"),
    ],
)
def test_what_is_wrong_is_said_before_weights_are_read(built, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        built(**changes)


def test_every_default_of_a_long_text_is_read(spec, monkeypatch):
    asked = set()
    monkeypatch.setattr(experiment, "plain", lambda config: bases.Recorder(config.to_dict(), asked))
    config = configs.override(configs.load(spec), SMALL)
    long_text.measure(long_text.build(config))
    assert set(configs.flatten(config)) - asked == set()
