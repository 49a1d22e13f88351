"""Strict YAML: plain values only, read by the rules of YAML 1.2, and no key twice.

PyYAML alone reads `1e-3` as a text, `010` as 8, `1:30` as 90 and `no` as false, keeps the last of two equal keys, and
lets a few aliases grow to gigabytes.
"""

import re
from typing import Any

import yaml

_NUMBER_CHARACTERS = 100  # far beyond any setting, and far below what Python refuses to convert


class _Refused(yaml.MarkedYAMLError):
    """YAML, but not what a config file needs."""


class _Loader(yaml.SafeLoader):
    """Only nulls, booleans, whole numbers, floats, texts, lists and mappings."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # not PyYAML's, which follow YAML 1.1

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:  # an alias names one too
            raise _Refused(
                problem="anchors and aliases are not read; write the value out", problem_mark=event.start_mark
            )
        if event.tag is not None:
            raise _Refused(problem=f"the tag {event.tag!r} is not read; leave it out", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _add_resolver(tag: str, pattern: str, first: str) -> None:
    regexp: Any = re.compile(f"(?:{pattern})\\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", regexp, [*first] or [""])


_add_resolver("null", r"", "")
_add_resolver("null", r"~|null|Null|NULL", "~nN")
_add_resolver("bool", r"true|True|TRUE|false|False|FALSE", "tTfF")
_add_resolver("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_add_resolver("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789")
_add_resolver("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.")


def parse(text: str) -> tuple[Any, list[str]]:
    """Read one YAML document.

    Args:
        text: The whole document; an empty one is None.

    Returns:
        The value, and its faults, one line each. After a fault of syntax the value is None.
    """
    problems: list[str] = []
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _plain(node, "", problems)
    except RecursionError:
        return None, ["lists or mappings stand too deep in one another; a config needs four levels at most"]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        fault = error.problem or "not YAML"
        return None, [where + (f"{error.context}, {fault}" if fault.startswith("but ") else fault)]
    except yaml.reader.ReaderError as error:
        return None, [f"character {error.position + 1}: U+{error.character:04X} may not stand in YAML; remove it"]
    except (ValueError, OverflowError):
        return None, ["an escape such as \\U0011FFFF names no character; remove it"]
    return value, problems


def _plain(node: yaml.Node, place: str, problems: list[str]) -> Any:
    """The value of a node; `place` is its key, dotted, such as `grid.layers_per_block[2]`."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{place}[{i}]", problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, problems)
    text: str = node.value
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float" if len(text) > _NUMBER_CHARACTERS:
            problems.append(f"{place}: a number of {len(text)} characters; give at most {_NUMBER_CHARACTERS}")
            return None
        case "int":
            return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _mapping(node: yaml.MappingNode, place: str, problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"line {line}: a list or a mapping cannot be a key; write a word")
            continue
        key: str = key_node.value
        dotted = f"{place}.{key}" if place else key
        if key in lines:
            where = f"line {line}" if line == lines[key] else f"lines {lines[key]} and {line}"
            problems.append(f"{dotted}: written twice, in {where}; keep one")
            continue
        lines[key] = line
        values[key] = _plain(value_node, dotted, problems)
    return values
