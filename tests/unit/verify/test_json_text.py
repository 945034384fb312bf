"""JSON in texts, and schemas."""

import pytest

from ftjax.errors import UserError
from ftjax.verify import json_text

PERSON = '{"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}'


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```{"a": 1}```'])
def test_json_is_read_with_and_without_a_fence(text):
    assert json_text.parse(text) == {"a": 1}


@pytest.mark.parametrize(
    "text", ["", "```", "``````", "```json", "{'a': 1}", '{"a": 1} and more', "NaN", "[-Infinity]", "[" * 100_000]
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"Expecting|Extra data|is not JSON|nested too deeply"):
        json_text.parse(text)


def test_a_value_follows_a_schema_or_does_not():
    assert json_text.follows({"name": "Ada"}, PERSON)
    assert not json_text.follows({"name": 3}, PERSON)
    assert not json_text.follows([], PERSON)
    assert json_text.follows("anything", "true")


def test_the_draft_that_a_schema_names_is_the_one_that_reads_it():
    """In draft 4, exclusiveMinimum is a bool beside minimum; later it is the bound."""
    old = '{"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": true}'
    assert not json_text.follows(3, old)
    assert json_text.follows(4, old)
    assert not json_text.follows(3, '{"exclusiveMinimum": 3}')


def test_references_within_a_schema_are_followed_and_others_are_never_fetched():
    tree = '{"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}'
    assert json_text.follows([[[]]], tree)
    assert not json_text.follows([[[1]]], tree)
    with pytest.raises(UserError, match=r"refers to 'https://example.com/x.json'.*put it under \$defs"):
        json_text.follows(1, '{"$ref": "https://example.com/x.json"}')


def test_a_value_too_deep_for_its_schema_does_not_follow_it():
    tree = '{"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}'
    assert not json_text.follows(json_text.parse("[" * 400 + "]" * 400), tree)


@pytest.mark.parametrize("text", ["1e400", "1" + "0" * 400])
def test_a_number_that_no_float_holds_follows_no_schema_that_divides_it(text):
    assert not json_text.follows(json_text.parse(text), '{"multipleOf": 0.5}')


@pytest.mark.parametrize(
    ("schema", "says"),
    [("{", "is no JSON"), ('{"type": "strong"}', r"is wrong at \$.type: 'strong'"), ("[]", "is wrong at")],
)
def test_a_schema_that_is_none_is_refused(schema, says):
    with pytest.raises(UserError, match=says):
        json_text.follows(1, schema)
