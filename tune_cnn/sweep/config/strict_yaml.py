"""Parses YAML 1.2 with plain values only, and reports every duplicate key."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from tune_cnn.texts import named

_LONGEST_NUMBER = 100  # characters: far more than any setting has, and far fewer than Python refuses to convert
_DEEPEST = 20
_CONSTRUCTOR = SafeConstructor(loader=YAML(typ="safe", pure=True))


class _PlainComposer(Composer):
    """Refuses anchors, aliases and tags: a few aliases can expand to gigabytes, and no config needs any."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if event.anchor is not None:  # an alias has one too
            fault = "anchors and aliases are not supported; write the value out"
        elif event.tag is not None:
            fault = f"the tag {str(event.tag)!r} is not supported; leave it out"
        elif self.depth > _DEEPEST:
            fault = "lists or mappings are nested too deep; a config needs four levels at most"
        else:
            return super().compose_node(parent, index)
        raise MarkedYAMLError(problem=fault, problem_mark=event.start_mark)


def parse(text: str) -> tuple[Any, list[str]]:
    """The value of a YAML document, None if it is empty or unreadable; and its faults, one line each."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _PlainComposer
    problems: list[str] = []
    try:
        node = yaml.compose(text)
        return (None if node is None else _plain(node, "", problems)), problems
    except MarkedYAMLError as error:
        # An error in a block scalar has only a context.
        mark, fault = error.problem_mark or error.context_mark, error.problem or error.context
        where = f"line {mark.line + 1}, column {mark.column + 1}"
        fault = f"{error.context}, {fault}" if fault.startswith("but ") else fault
        remedy = "" if ";" in fault else "; look at the indentation, colons, brackets and quotes there and before"
        return None, [f"{where}: {fault}{remedy}"]
    except ReaderError as error:
        return None, [f"character {error.position + 1}: U+{error.character:04X} is not allowed in YAML; remove it"]
    except (AssertionError, KeyError, ValueError, OverflowError) as error:
        return None, [f"no YAML 1.2 ({named(error)}); look for a %YAML line, or an escape such as \\U0011FFFF"]


def _plain(node: Any, place: str, problems: list[str]) -> Any:
    """The value of a node; `place` is its key, dotted, such as `grid.layers_per_block[2]`."""
    if isinstance(node, SequenceNode):
        return [_plain(item, f"{place}[{i}]", problems) for i, item in enumerate(node.value)]
    if isinstance(node, MappingNode):
        return _mapping(node, place, problems)
    kind = node.tag.rpartition(":")[2]
    if kind in ("null", "bool") or (kind in ("int", "float") and len(node.value) <= _LONGEST_NUMBER):
        try:
            return SafeConstructor.yaml_constructors[node.tag](_CONSTRUCTOR, node)
        except ValueError:  # such as that of 0x_
            pass
    return node.value  # a text, even if YAML would read it as a date or the like


def _mapping(node: MappingNode, place: str, problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
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
