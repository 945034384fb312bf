"""The card says what the thing is, what it was made of, and what was measured."""

import datetime

import pytest
import yaml

from ftjax.runs import card


def make(**changes):
    fields = {
        "title": "opening hours",
        "kind": "adapter",
        "base": "ftjax/base",
        "base_hash": "sha256:abc",
        "data": "world:format/train | seed 0",
        "template": "chatml",
        "command": "python scripts/train.py --config configs/quickstart.py",
        "metrics": [
            card.Measured("exact match", 0.1, 0.93, (0.06, 0.15), (0.89, 0.96), 200),
            card.Measured("perplexity", 12.3456, 3.2, None, None, None),
            card.Measured("new", None, 3.2, None, None, None),
        ],
        "trainable": 50_000,
        "total": 2_500_000,
        "tokens": 1_234_567,
        "versions": {"zipp": "4.1.2", "jax": "0.10.2"},
        "license": "apache-2.0",
        "date": datetime.date(2026, 1, 2),
    }
    return card.model_card(**(fields | changes))


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_states_every_fact():
    text = make()
    for fact in ("`ftjax/base`", "sha256:abc", "world:format/train", "chatml", "1,234,567", "2026-01-02", "jax 0.10.2"):
        assert fact in text
    assert "zipp" not in text
    assert "50,000 of 2,500,000 (2.00 %)" in text
    assert "python scripts/train.py --config configs/quickstart.py" in text
    assert "| exact match | 0.1 [0.06, 0.15] | 0.93 [0.89, 0.96] | 200 |" in text
    assert "| perplexity | 12.35 | 3.2 |  |" in text
    assert "| new |  | 3.2 |  |" in text


@pytest.mark.parametrize(("kind", "library"), [("adapter", "peft"), ("merged", "transformers")])
def test_the_front_matter_is_what_the_hub_reads(kind, library):
    text = make(kind=kind)
    facts = front(text)
    assert facts["base_model"] == "ftjax/base"
    assert facts["library_name"] == library
    assert facts["license"] == "apache-2.0"
    assert ("PeftModel" in text) == (kind == "adapter")
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_a_base_without_a_license_is_said_to_have_none():
    text = make(license=None)
    assert "license" not in front(text)
    assert "the base states none" in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    lines = [line.replace("\\|", "") for line in make().splitlines() if line.startswith("|")]
    counts = [line.count("|") for line in lines]
    assert set(counts) == {3, 5}


def test_a_card_without_metrics_has_no_empty_table():
    assert "## Measured" not in make(metrics=[])


def test_what_training_changed_is_a_table_with_intervals_and_sentences():
    """Ends that are not finite are text in summary.json; a metric without an interval has no line."""
    entry = {"before": 0.1, "after": 0.8, "value": 0.7, "low": 0.6, "high": "Infinity", "p": 1e-5, "of": 200}
    held = {"score": entry, "loss": {"before": 1.0, "after": "NaN", "of": 3}, "words": "score: higher"}
    held["flips"] = {"of": "score", "won": 7, "lost": 2, "ids": {"won": [], "lost": []}}
    text = make(changes={"held_out": held, "retention": {}})
    assert "| held-out: score | 0.1 | 0.8 | +0.7 [0.6, inf] | < 0.001 | 200 |" in text
    assert "held-out: loss" not in text
    assert "- held-out: score: higher" in text
    assert "- held-out rows won by score: 7; lost: 2" in text
    assert "What training changed" not in make(changes={"held_out": {}})


def test_what_is_not_known_is_left_out_and_what_was_done_since_is_said():
    text = make(data=None, trainable=None, tokens=None, origin="sum of 0.7 x a + 0.3 x b")
    assert "| made from | sum of 0.7 x a + 0.3 x b |" in text
    assert not any(word in text for word in ("| data |", "trained parameters", "trained tokens"))
    assert "made from" not in make()


@pytest.mark.parametrize(
    ("readme", "license"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# Base\n", "apache-2.0"),
        ("---\ntags:\n- x\nlicense: 'mit'\n---\n", "mit"),
        ("---\ntags:\n- x\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        (None, None),
    ],
)
def test_the_license_is_the_one_that_the_card_of_the_base_states(tmp_path, readme, license):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert card.license_of(tmp_path) == license
