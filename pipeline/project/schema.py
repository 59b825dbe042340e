"""The JSON schema of params.yaml, for editors; `slipway check` knows more than a schema can say."""

from typing import Any

import msgspec

from pipeline import files, params

ID = "https://json-schema.org/draft/2020-12/schema"
FILE_NAME = "params.schema.json"


def schema() -> bytes:
    """Return the schema as canonical JSON."""
    document: dict[str, Any] = msgspec.json.schema(params.Params)
    return files.encode_json({"$schema": ID, "title": "Slipway's params.yaml", **document})
