"""Pin inputs from outside (data, models, the user's own code) by digest in params.yaml."""

from pathlib import Path
from typing import Any

import yaml

from pipeline import files, strict_yaml
from pipeline.errors import InputsError

# section, the key that names the input, the key that pins it
PINS = (
    ("data", "path", "digest"),
    ("data", "url", "digest"),
    ("train", "checkpoint", "checkpoint_digest"),
    ("net", "factory", "factory_digest"),
    ("net", "onnx", "onnx_digest"),
    ("task", "metric", "metric_digest"),
)
FUNCTIONS = ("factory", "metric")  # module:function, whose source file is pinned


def lock(path: Path) -> dict[str, str]:
    """Write the digest of each named input beside it, leaving the rest of the file as it is.

    Of a folder it is over its names and bytes; what a URL names is fetched into the project's
    cache. A metric that is not the user's own has nothing to pin.

    Returns:
        The dotted keys written, with their digests; empty when params.yaml names no such input.
    """
    written = {}
    for section, key, pin in PINS:
        document = strict_yaml.read(path)
        settings = document.value.get(section)
        source = settings.get(key) if isinstance(settings, dict) else None
        if source is None or (key == "metric" and ":" not in str(source)):
            continue
        digest = _digest(section, key, str(source), path)
        text = _set_beside(
            path.read_text(encoding="utf-8"), document.root, section, key, pin, digest
        )
        files.write_atomic(path, text.encode())
        written[f"{section}.{pin}"] = digest
    return written


def _digest(section: str, key: str, value: str, path: Path) -> str:
    if key == "url":
        from pipeline.data import download

        return files.digest_file(download.fetch(value, None, path.parent / download.CACHE))
    if key in FUNCTIONS:
        from pipeline import users_code

        return files.digest_file(users_code.find(f"{section}.{key}", value, InputsError))
    found = path.parent / value
    if section == "data" and found.is_dir():
        return files.digest_folder(found)
    if not found.is_file():
        raise InputsError(f"{section}.{key}: {value} is missing; mend {path.name}")
    return files.digest_file(found)


def _set_beside(text: str, root: Any, section: str, key: str, pin: str, digest: str) -> str:
    """Replace the pin's scalar, or put it on a line of its own under the key that it pins."""
    mapping = _member(root, section)[1]
    existing = _member(mapping, pin)
    if existing is not None:
        node = existing[1]
        start, end = node.start_mark.index, node.end_mark.index
        space = " " if start == end else ""  # an empty value begins right behind its colon
        return text[:start] + space + digest + text[end:]
    name, value = _member(mapping, key)
    if mapping.flow_style:  # {factory: a:b} on one line
        at = value.end_mark.index
        return f"{text[:at]}, {pin}: {digest}{text[at:]}"
    end = text.find("\n", value.end_mark.index)
    at = len(text) if end < 0 else end
    return f"{text[:at]}\n{' ' * name.start_mark.column}{pin}: {digest}{text[at:]}"


def _member(node: Any, name: str) -> Any:
    assert isinstance(node, yaml.MappingNode)
    return next(((k, v) for k, v in node.value if k.value == name), None)
