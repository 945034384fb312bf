"""Argument strings, sections and overrides: what is right arrives with its type, what is wrong is one line."""

import json
from typing import Literal

from hypothesis import given, settings, strategies
import ml_collections
from ml_collections import config_dict
import pytest

from ftjax import config, errors


def small():
    return ml_collections.ConfigDict(
        {
            "steps": 10,
            "name": "a",
            "optimizer": {"learning_rate": 1e-3, "betas": (0.9, 0.95), "nesterov": False},
            "resume_from": config_dict.placeholder(str),
            "empty": {},
        }
    ).lock()


def test_arguments_have_the_types_of_their_defaults():
    arg = config.parse("debug, model=llama-3:1b,steps=7 ,rate=1e-3", debug=False, model="x", steps=1, rate=0.5, seed=3)
    assert vars(arg) == {"debug": True, "model": "llama-3:1b", "steps": 7, "rate": 1e-3, "seed": 3}


@pytest.mark.parametrize(
    ("text", "value"), [("debug=false", False), ("debug=0", False), ("debug=True", True), ("", False)]
)
def test_a_bool_argument_can_be_written_out(text, value):
    assert config.parse(text, debug=False).debug is value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("debgu", "unknown config argument 'debgu'; Did you mean 'debug'? this config takes debug, steps"),
        ("zzz=3", "unknown config argument 'zzz'; this config takes debug, steps"),
        ("steps", "config argument 'steps' needs a value; write steps=..."),
        ("steps=ten", "steps=ten: 'ten' is no int; give an int"),
        ("debug=maybe", "debug=maybe: write true or false"),
        ("steps=1,steps=2", "config argument 'steps' is given twice; give it once"),
        ("=3", "unknown config argument ''; this config takes debug, steps"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(text, says):
    with pytest.raises(errors.UserError) as caught:
        config.parse(text, debug=False, steps=1)
    assert str(caught.value) == says


def loss(
    array, *, beta: float, kind: Literal["soft", "hard"], name_of_it: str | None, sizes: tuple[int, ...], other: list
):
    return array, beta, kind, name_of_it, sizes, other


def section(**changes):
    return {"name": "loss", "beta": 0.1, "kind": "soft", "name_of_it": None, "sizes": (1, 2)} | changes


def test_a_section_fills_in_all_scalar_keyword_parameters_and_nothing_else():
    bound = config.bind(loss, section())
    assert bound(5, other=[3]) == (5, 0.1, "soft", None, (1, 2), [3])


def test_an_int_for_a_float_parameter_arrives_as_a_float():
    beta = config.bind(loss, section(beta=1))(5, other=[])[1]
    assert (beta, type(beta)) == (1.0, float)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta": "0.1"}, "beta is '0.1'; give float"),
        ({"beta": True}, "beta is True; give float"),
        ({"kind": "sofd"}, "kind is 'sofd'; give 'soft' or 'hard'"),
        ({"name_of_it": 3}, "name_of_it is 3; give str or None"),
        ({"sizes": 3}, "sizes is 3; give tuple"),
        ({"margin": 3.0}, "misses [] and has no use for ['margin']"),
        ({"bta": 3.0}, "has no use for ['bta']."),
    ],
)
def test_a_section_that_does_not_fit_its_function_is_refused(changes, says):
    with pytest.raises(errors.UserError) as caught:
        config.bind(loss, section(**changes))
    assert says in str(caught.value)


def test_a_misspelt_key_of_a_section_is_answered_with_the_missing_one():
    wrong = section()
    wrong["bta"] = wrong.pop("beta")
    with pytest.raises(
        errors.UserError, match=r"misses \['beta'\] and has no use for \['bta'\]. Did you mean 'beta'\?"
    ):
        config.bind(loss, wrong)


def test_a_config_section_binds_like_a_dict():
    section_ = ml_collections.ConfigDict(section()).lock()
    assert config.bind(loss, section_)(5, other=[])[1] == 0.1


leaves = strategies.none() | strategies.booleans() | strategies.integers(-5, 5) | strategies.text("ab", max_size=3)
leaves = leaves | strategies.floats(allow_nan=False, allow_infinity=False)
values = strategies.recursive(leaves, lambda inner: strategies.lists(inner, max_size=3).map(tuple), max_leaves=5)
names = strategies.text("abcd", min_size=1, max_size=4)
trees = strategies.dictionaries(names, values | strategies.dictionaries(names, values, max_size=3), max_size=4)


@settings(max_examples=50)
@given(trees)
def test_thaw_undoes_what_json_does_to_a_config(tree):
    assert config.thaw(json.loads(json.dumps(tree))) == tree
    assert config.difference(tree, json.loads(json.dumps(tree))) == {}


@settings(max_examples=50)
@given(trees, trees)
def test_two_configs_differ_exactly_where_their_flat_forms_differ(one, two):
    found = config.difference(one, two)
    assert set(found) == set(config.difference(two, one))
    a, b = config.flatten(one), config.flatten(two)
    for key in a.keys() | b.keys():
        same = key in a and key in b and json.dumps(a[key]) == json.dumps(b[key])
        equal_number = key in a and key in b and a[key] == b[key]
        assert (key not in found) if same else (key in found or equal_number)


def test_a_difference_shows_both_sides():
    new = small()
    config.override(new, {"optimizer.learning_rate": 1e-2, "optimizer.nesterov": True})
    assert config.difference(small(), new) == {
        "optimizer.learning_rate": (1e-3, 1e-2),
        "optimizer.nesterov": (False, True),
    }
    assert config.difference({"a": 1}, {"b": 1}) == {"a": (1, ...), "b": (..., 1)}


def test_true_is_not_one_but_one_is_one_point_zero():
    assert config.difference({"a": True}, {"a": 1}) == {"a": (True, 1)}
    assert config.difference({"a": 1}, {"a": 1.0}) == {}


def test_a_run_gives_its_config_back(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(small().to_dict()))
    again = config.from_run(tmp_path)
    assert again == small()
    assert hash(ml_collections.FrozenConfigDict(again)) == hash(ml_collections.FrozenConfigDict(small()))
    assert again.is_locked
    assert again.optimizer.betas == (0.9, 0.95)
    config.set_one(again, "resume_from", "runs/x")  # an open field is still open
    assert again.resume_from == "runs/x"


def test_a_run_of_an_older_ftjax_takes_what_is_newer_from_the_defaults(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"steps": 7, "optimizer": {"name": "lion"}}))
    newer = {"steps": 1, "seed": 3, "optimizer": {"name": "adamw", "offload": "none"}, "quant": {"group": 0}}
    again = config.from_run(tmp_path, newer)
    assert again.to_dict() == {
        "steps": 7, "seed": 3, "optimizer": {"name": "lion", "offload": "none"}, "quant": {"group": 0}
    }  # fmt: skip
    assert again.is_locked


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_folder_without_a_readable_config_is_no_run(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(errors.UserError, match="give the folder of a run"):
        config.from_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "12", 12),
        ("optimizer.learning_rate", "3", 3.0),
        ("optimizer.nesterov", "true", True),
        ("optimizer.betas", "(0.8, 0.99)", (0.8, 0.99)),
        ("optimizer.betas", "a,'b'", ("a", "b")),
        ("optimizer.betas", """("/x/it's a file.jsonl",)""", ("/x/it's a file.jsonl",)),
        ("optimizer.betas", "('/tmp/a, b.jsonl', 2, c.jsonl)", ("/tmp/a, b.jsonl", 2, "c.jsonl")),
        ("optimizer.betas", r"""'a\'b "c"', "d\"e\u00e9" """, ('a\'b "c"', 'd"eé')),
        (
            "optimizer.betas",
            "it's.jsonl, 2024_01, .*\\.q_proj, '.*\\.v_proj'",
            ("it's.jsonl", "2024_01", ".*\\.q_proj", ".*\\.v_proj"),
        ),
        ("optimizer.betas", "(true, None, -1e-3,)", ("true", "None", -1e-3)),
        ("optimizer.betas", "[]", ()),
        ("name", "a=b", "a=b"),
        ("resume_from", "runs/x", "runs/x"),
    ],
)
def test_an_override_takes_the_type_of_its_field(key, text, value):
    changes, rest = config.overrides([f"--config.{key}={text}", "--debug"])
    assert rest == ["--debug"]
    assert config.flatten(config.override(small(), changes))[key] == value
    changes, rest = config.overrides(["first", f"--config.{key}", text])
    assert config.flatten(config.override(small(), changes))[key] == value


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "optimizer.leraning_rate",
            "1",
            "the config has no 'optimizer.leraning_rate'. Did you mean 'optimizer.learning_rate'?",
        ),
        ("learning_rate", "1", "the config has no 'learning_rate'. Did you mean 'optimizer.learning_rate'?"),
        ("zz", "1", "the config has no 'zz'. It has empty, name, optimizer, resume_from, steps."),
        ("steps.more", "1", "the config has no 'steps.more'."),
        ("steps", "7.5", "steps=7.5: '7.5' is no int; give an int"),
        ("steps", 7.5, "steps: 7.5 is no int; give an int"),
        ("optimizer", "1", "config.optimizer is a section, not a value; set one of optimizer.betas"),
        ("optimizer.nesterov", "perhaps", "write true or false"),
        ("optimizer.betas", "('a, 0.9)", "the quotes do not close"),
        ("optimizer.betas", "('a' b, 0.9)", "the quotes do not close"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(key, value, says):
    before = small()
    with pytest.raises(errors.UserError) as caught:
        config.override(before, {key: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == small()


def test_an_override_without_a_value_is_refused():
    with pytest.raises(errors.UserError, match=r"--config\.steps needs a value"):
        config.overrides(["--config.steps"])


def test_a_config_file_is_loaded_with_its_argument_and_locked(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import ml_collections\ndef get_config(arg=''):\n    return ml_collections.ConfigDict({'arg': arg})\n"
    )
    loaded = config.load(f"{file}:a=1,b")
    assert loaded.arg == "a=1,b"
    assert loaded.is_locked


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mein.py", None, "Did you mean"),
        ("mine.py", "x = 1\n", "defines no get_config"),
        (
            "mine.py",
            "import ml_collections as m\n\n\ndef get_config(arg):\n    m.ConfigDict({'steps': 1}).lock().stesp = 2\n",
            "stesp",
        ),
    ],
)
def test_a_config_file_that_is_wrong_is_one_line(tmp_path, name, text, says):
    (tmp_path / "mine.py").write_text(text or "")
    with pytest.raises(errors.UserError, match=says) as caught:
        config.load(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
