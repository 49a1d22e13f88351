"""Validation of settings: types of values, messages about wrong ones, and suggestions for mistyped keys."""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache, wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from tune_cnn.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")

NO_OTHER_KEYS = ConfigDict(extra="forbid", field_title_generator=lambda name, _: name)
_MOST_FAULTS = 100  # in a message
_MOST_SHOWN = 120  # characters of a value in a message


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _choice(value: Any) -> Any:
    if isinstance(value, bool):  # True and False equal 1 and 0
        raise ValueError
    return value.lower() if isinstance(value, str) else _whole(value)


# Types of values; integers have at most PyTorch's 64 bits.
AsWhole = BeforeValidator(_whole)  # accepts 3.0 too
AsChoice = BeforeValidator(_choice)  # of a Literal; accepts upper case too
Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63), AsWhole]
Count = Annotated[int, Field(strict=True, ge=1, lt=2**63), AsWhole]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]


def plain(value: Any) -> Any:
    """Convert a notebook's value, such as an array, to the JSON value that it equals.

    >>> plain({"lr": np.float32(1e-3), "filters_per_layer": np.array([4, 6]), "hidden_dims": (10,)})
    {'lr': 0.001, 'filters_per_layer': [4, 6], 'hidden_dims': [10]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not hasattr(value, "__array__"):
        return value
    import numpy as np

    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # such as a tensor on a GPU
        return value
    if array.ndim:
        return [plain(item) for item in array]
    # The shortest decimal of a float is the number that was typed: 0.001 for np.float32(1e-3).
    return float(str(array[()])) if array.dtype.kind == "f" else array.item()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # takes milliseconds


def check(kind: Callable[..., T], values: Any) -> tuple[T | None, list[str]]:
    """Validate plain values; return an instance of the type (None if any is wrong) and one line per wrong value.

    The lines are made from the type's JSON schema, which says what each value must be.
    """
    try:
        return _adapter(kind).validate_python(values), []
    except ValidationError as error:
        schema = _adapter(kind).json_schema()
        problems: dict[str, str] = {}  # by place: one per value, even if several of its parts are wrong
        for fault in error.errors(include_url=False)[:_MOST_FAULTS]:
            place, problem = _fault(fault, values, schema)
            problems.setdefault(place, problem)
        return None, [f"{place}: {problem}" for place, problem in problems.items()]


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to check each call's arguments against its annotations; it gets them as plain values."""
    signature = inspect.signature(function, eval_str=True)
    kinds: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        kind: Any = parameter.annotation
        if parameter.kind is parameter.VAR_POSITIONAL:  # as an axis, so that a fault names its item
            kind = Annotated[list[kind], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
        kinds[name] = (kind, ...)
    model = create_model(function.__name__, **kinds)

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        given = signature.bind(*args, **options)
        given.apply_defaults()
        values, problems = check(model, plain(given.arguments))
        if problems:
            raise ConfigError(f"{function.__name__}()", problems)
        given.arguments = vars(values)
        return function(*given.args, **given.kwargs)

    return call


def _fault(fault: ErrorDetails, value: Any, root: dict[str, Any]) -> tuple[str, str]:
    """Place of a wrong value, and what it must be; for an item of a list such as `hidden_dims`, the whole list."""
    place, schema = "", root
    for part in fault["loc"]:
        properties = schema.get("properties", {})
        if part in properties:
            place, schema = f"{place}.{part}".lstrip("."), properties[part]
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]] | schema if "$ref" in schema else schema
            value = value.get(part)
        elif isinstance(part, int) and _is_axis(schema) and not _is_flat(value, schema):
            place, schema, value = f"{place}[{part}]", schema["items"], value[part]
        elif fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return f"{place}.{part}".lstrip("."), f"unknown key; {suggest(str(part), properties)}"
        else:
            break
    return place, _problem(fault, value, schema)


def _problem(fault: ErrorDetails, value: Any, schema: dict[str, Any]) -> str:
    if fault["type"] == "missing" and value is None:
        return f"missing; write a pattern such as {schema['examples'][0]}"
    if schema.get("type") == "object" and "examples" in schema:
        example = ", ".join(f"{key}: {item}" for key, item in schema["examples"][0].items())
        return f"{shown(value)} is not a mapping; write keys under it, such as {example}, or leave it out"
    if not _is_axis(schema):
        return f"{shown(value)} is not {_wanted(schema)}"
    if not isinstance(value, list) or not value:
        return f"{shown(value)} is not a list of values; give one or more in brackets, or leave it out"
    if _is_flat(value, schema):
        return f"{shown(value)} is one list, not a list of lists; write {shown([[item] for item in value])}"
    return f"{fault['msg'].removeprefix('Value error, ')} is given twice; keep one"


def _is_axis(schema: dict[str, Any]) -> bool:
    """Whether a list is an axis of the grid: the values that a key takes in turn."""
    return bool(schema.get("uniqueItems"))


def _is_flat(value: Any, schema: dict[str, Any]) -> bool:
    """Whether an axis that must hold lists, such as that of K, holds plain numbers."""
    return schema["items"].get("type") == "array" and all(isinstance(item, int | float) for item in value)


_LIMITS = {
    "minimum": "from {:g} up",
    "exclusiveMinimum": "above {:g}",
    "maximum": "and at most {:g}",
    "exclusiveMaximum": "and below {:g}",
}


def _wanted(schema: dict[str, Any]) -> str:
    """Describe in words, from its JSON schema, what a value must be."""
    if "anyOf" in schema:
        *first, last = map(_wanted, schema["anyOf"])
        return f"{', '.join(first)}, or {last}"
    if choices := schema.get("enum"):
        return f"one of {', '.join(map(str, choices))}"
    example = f", such as {schema['examples'][0]}" if "examples" in schema else ""
    match schema:
        case {"description": description, "pattern": _} | {"description": description, "prefixItems": _}:
            return f"{description}{example}"
        case {"type": "string", "examples": [pattern]}:
            return f"a text; write a pattern such as {pattern!r}, in quotes"
        case {"format": "path"}:
            return "a path"
        case {"type": "object"}:
            return "a mapping of names to values"
        case {"const": value}:
            return str(value)
        case {"type": "integer" | "number" as kind}:
            limits = [text.format(schema[key]) for key, text in _LIMITS.items() if schema.get(key, 2**63) < 2**63]
            return " ".join(["a whole number" if kind == "integer" else "a number", *limits])
        case {"items": items}:
            plural = _wanted(items).replace("a whole number", "whole numbers").replace("a text", "texts")
            return f"a list of {plural}{example}"
    if "type" not in schema:
        return str(schema["description"])
    return {"string": "a text", "boolean": "true or false"}.get(schema["type"], str(schema["type"]))


def shown(value: object) -> str:
    """Format a value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer with thousands of digits
        text = "a huge number"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


# Lower-case keys of other tools that spelling alone would not match, or would match wrongly ("": suggest none).
_SYNONYMS = {
    "learning_rate": "lr", "learning_rte": "lr", "weight_decay": "reg", "batch_size": "bs_train",
    "patience": "early_stopping", "num_epochs": "epochs", "max_epochs": "epochs", "filters": "filters_per_layer",
    "k": "filters_per_layer", "l": "layers_per_block", "p": "pool_every", "scheduler": "",
}  # fmt: skip


def suggest(key: str, known: Collection[str]) -> str:
    """Remedy for an unknown key: the nearest known one, or the list of all."""
    key, names = key.lower(), {name.lower(): name for name in known}
    close = [*difflib.get_close_matches(key, names), *difflib.get_close_matches(key, _SYNONYMS, cutoff=0.8)]
    near = difflib.get_close_matches(key, close, n=1)
    target = {**_SYNONYMS, **names}[near[0]] if near else None
    return f"did you mean '{target}'?" if target in known else f"there are {', '.join(known)}"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
_NAME_RULE = "use at most 100 letters, digits and . _ + = - without '..', and begin with a letter or a digit"


def name_problems(name: object) -> list[str]:
    """Check that the name of an experiment or sweep can be a file name everywhere; return no fault, or one."""
    if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
        return []
    return [f"{shown(name)} cannot be a name; {_NAME_RULE}"]
