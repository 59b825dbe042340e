"""Read YAML into typed structs strictly: every problem at once, each with its key and line."""

import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from pipeline.errors import ParamsError

Key = tuple[str, ...]
S = TypeVar("S", bound=msgspec.Struct)
Rule = Callable[[S], Iterable[tuple[Key, str]]]


class Document(msgspec.Struct, frozen=True):
    """A parsed file: its plain value, and the node tree that knows the lines."""

    path: Path
    value: dict[str, Any]
    root: Any

    def problems(self, kind: type[msgspec.Struct]) -> list[str]:
        """List duplicate and unknown keys, missing keys and values out of range, one line each."""
        found = [*_duplicates(self.root, ()), *_mismatches(self.value, kind, ())]
        return [self.locate(key, what) for key, what in found]

    def locate(self, key: Key, what: str) -> str:
        """Add ``(FILE:LINE)`` of the key, or of its nearest parent that stands in the file."""
        line, node = None, self.root
        for name in key:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            match = [(k, v) for k, v in pairs if k.value == name]
            if not match:
                break
            line, node = match[-1][0].start_mark.line + 1, match[-1][1]
        return f"{what} ({self.path.name}{f':{line}' if line else ''})"


def read(path: Path) -> Document:
    """Parse the file.

    Raises:
        ParamsError: when it cannot be read, is not YAML or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ParamsError(f"{path} must be a mapping of sections, got {type(value).__name__}")
    return Document(path=path, value=value, root=root)


def parse(path: Path, kind: type[S], rules: Iterable[Rule[S]]) -> tuple[S | None, list[str]]:
    """Read a file as ``(value or None, every problem at once, one line each)``.

    Args:
        path: the file.
        kind: its struct.
        rules: give what its types cannot say; they are asked of a value of the right types.

    Raises:
        ParamsError: when it cannot be read, is not YAML or is not a mapping.
    """
    document = read(path)
    problems = document.problems(kind)
    if problems:
        return None, problems
    value = msgspec.convert(document.value, kind)
    return value, [document.locate(*found) for rule in rules for found in rule(value)]


def sound(parsed: tuple[S | None, list[str]]) -> S:
    """Return the value that `parse` read.

    Raises:
        ParamsError: naming the first problem.
    """
    value, problems = parsed
    if value is None or problems:
        raise ParamsError(problems[0])
    return value


def _duplicates(node: Any, at: Key) -> list[tuple[Key, str]]:
    """YAML lets a later key hide an earlier one without a word; here it is a problem."""
    found: list[tuple[Key, str]] = []
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            here = (*at, str(key.value))
            if key.value in seen:
                found.append((here, f"{'.'.join(here)} stands twice"))
            seen.add(key.value)
            found += _duplicates(value, here)
    return found


def _mismatches(value: Any, kind: Any, at: Key) -> list[tuple[Key, str]]:
    """Check each field on its own, so that one mistake does not hide the next."""
    struct = _struct_of(kind)
    if _is_struct(struct) and (value is not None or struct is kind):
        return _struct_mismatches(value, struct, at)
    if isinstance(value, dict) and typing.get_origin(kind) is dict:
        return _table_mismatches(value, kind, at)
    if isinstance(value, list) and not _all_finite(value):
        return [(at, f"{'.'.join(at)} must hold finite numbers only, got {value}")]
    if isinstance(value, float) and not math.isfinite(value):
        return [(at, f"{'.'.join(at)} must be a finite number, got {value}")]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return [(at, _explain(error, value, kind, at))]
    return []


def _struct_of(kind: Any) -> Any:
    """Return the struct of ``Struct | None``, whose fields are then checked one by one."""
    members = set(typing.get_args(kind)) - {type(None)}
    # of a generic struct the union is typing's own
    if typing.get_origin(kind) in {types.UnionType, typing.Union} and len(members) == 1:
        return members.pop()
    return kind


def _is_struct(kind: Any) -> bool:
    """Tell structs, also those of a generic struct's parameter, from all else."""
    kind = typing.get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _table_mismatches(value: dict[Any, Any], kind: Any, at: Key) -> list[tuple[Key, str]]:
    """Check the names of a table, which may be a closed set, and then what stands under each."""
    name_kind, member = typing.get_args(kind)
    found: list[tuple[Key, str]] = []
    for name, v in value.items():
        here = (*at, str(name))
        try:
            msgspec.convert(name, name_kind)
        except msgspec.ValidationError:
            allowed = ", ".join(_literals(name_kind))
            rule = f"is not known; allowed: {allowed}" if allowed else "must be text as a name"
            found.append((here, f"{'.'.join(here)} {rule}"))
        else:
            found += _mismatches(v, member, here)
    return found


def _struct_mismatches(value: Any, kind: Any, at: Key) -> list[tuple[Key, str]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        return [(at, f"{'.'.join(at)} must be a mapping of {', '.join(fields)}, got {value!r}")]
    found: list[tuple[Key, str]] = []
    for name, member in value.items():
        here = (*at, str(name))
        if name not in fields:
            found.append((here, f"{'.'.join(here)} is not known; allowed: {', '.join(fields)}"))
        else:
            found += _mismatches(member, fields[name].type, here)
    missing = [n for n, field in fields.items() if field.required and n not in value]
    return found + [(at, f"{'.'.join((*at, name))} is missing") for name in missing]


_SEVERAL = ("Expected array", "Expected object")


def _explain(error: msgspec.ValidationError, value: Any, kind: Any, at: Key) -> str:
    """Turn msgspec's ``Expected `float` < 1.0 - at `$[0].x``` into key, rule and value."""
    rule, _, inner = str(error).partition(" - at ")
    inner = inner.strip("`").removeprefix("$")
    with suppress(KeyError, IndexError, TypeError):  # ends at something missing: show what holds it
        for index, name in re.findall(r"\[(\d+)\]|\.(\w+)", inner):
            value = value[int(index)] if index else value[name]
    place, rule = f"{'.'.join(at)}{inner}", rule.replace("`", "")
    if rule.startswith("Object "):  # misses a field, or has one too many
        return f"{place}: {rule.removeprefix('Object ')}, got {value!r}"
    # of a step's own setting the rule is msgspec's; its kind lists the steps
    allowed = ", ".join(dict.fromkeys(_literals(kind)))
    must = rule
    if allowed and rule.startswith("Invalid"):
        must = f"one of {allowed}"
    elif allowed and not inner:
        what = rule.partition(", got ")[0]
        must = f"{what} of: {allowed}" if rule.startswith(_SEVERAL) else f"one of {allowed}"
    return f"{place} must be {must.removeprefix('Expected ')}, got {value!r}{_hint(rule, value)}"


def _hint(rule: str, value: Any) -> str:
    """Say why ``17.1e9`` is no number: YAML 1.1 wants a point and a sign."""
    match = re.fullmatch(r"(-?\d+)(\.\d+)?[eE]([-+]?)(\d+)", str(value))
    if (
        not isinstance(value, str)
        or match is None
        or not rule.startswith(("Expected float", "Expected int"))
    ):
        return ""
    whole, fraction, sign, exponent = match.groups()
    return f"; to YAML that is text, write {whole}{fraction or '.0'}e{sign or '+'}{exponent}"


def _all_finite(value: Any) -> bool:
    """Look for NaN and infinity at any depth: YAML can write them, canonical JSON cannot."""
    if isinstance(value, dict):
        return _all_finite(list(value.values()))
    if isinstance(value, list):
        return all(_all_finite(member) for member in value)
    return not isinstance(value, float) or math.isfinite(value)


def _literals(kind: Any) -> list[str]:
    """List the members of a closed set, also inside a tuple of them; msgspec's message does not."""
    found: list[str] = []
    for member in getattr(kind, "__args__", ()):
        if isinstance(member, str):
            found.append(member)
        elif isinstance(member, type) and issubclass(member, msgspec.Struct):
            tag = member.__struct_config__.tag
            found += [tag] if isinstance(tag, str) else []
        else:
            found += _literals(member)
    return found
