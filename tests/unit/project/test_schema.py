"""The published schema says what params.yaml may hold."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.project import schema, settings

ROOT = Path(__file__).parents[3]
CHECKER = jsonschema.Draft202012Validator(json.loads(schema.schema()))


def default():
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_the_committed_schema_is_the_current_one():
    assert (ROOT / "docs" / schema.FILE_NAME).read_bytes() == schema.schema()


def test_it_is_a_schema_and_takes_our_params():
    jsonschema.Draft202012Validator.check_schema(CHECKER.schema)
    assert not list(CHECKER.iter_errors(default()))


def test_it_takes_every_preset():
    assert not list(CHECKER.iter_errors({**default(), "targets": settings.presets()}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("prune", "half", {"ratio": 1.5}), ("net", "nam", "resnet8"), ("task", "kind", "poetry")],
)
def test_it_refuses_what_check_refuses(section, key, value):
    params = default()
    params[section][key] = value
    assert list(CHECKER.iter_errors(params))
