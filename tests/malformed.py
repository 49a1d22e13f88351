"""Hypothesis strategies for edited and damaged copies of a good JSON file, and a function that runs a command."""

import contextlib
import io
import json
from typing import Any

from hypothesis import strategies as st

from tune_cnn.cli import main

numbers = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 1e308, -1e308, 5e-324, 0, -0.0, 2**64])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy of the value with `change` at that path."""
    if not path:
        return change
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], change)
    return copy


@st.composite
def edited(draw: st.DrawFn, good: str) -> bytes:
    """A good file in which one to three values are replaced by others."""
    content = json.loads(good)
    for _ in range(draw(st.integers(1, 3))):
        content = replaced(content, draw(st.sampled_from(places(content))), draw(values))
    return json.dumps(content).encode()


@st.composite
def damaged(draw: st.DrawFn, good: str) -> bytes:
    """A good file with a stretch of bytes replaced, and perhaps cut off after it."""
    content = good.encode()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(start + 20, len(content))))
    rest = b"" if draw(st.booleans()) else content[end:]
    return content[:start] + draw(st.binary(max_size=8)) + rest


def run(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, stdout and stderr. Hypothesis and `capsys` do not mix."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        exit_code = main(arguments)
    return exit_code, out.getvalue(), err.getvalue()
