"""Formatting of counts, sizes, durations, settings and tables; escaping of control characters; a digest."""

import hashlib
import math
import re
import sys
from collections.abc import Sequence
from typing import TextIO


def printable(text: str, keep: str = "") -> str:
    r"""Escape control and format characters (bidi overrides too), such as `\x1b`, except those in `keep`.

    Names and messages may come from untrusted files: unescaped, they could clear the screen, fill the clipboard or
    reverse the text.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def tell(text: object, file: TextIO | None = None) -> None:
    """Print a text of one or more lines, made `printable`, to stdout or `file`; used for all messages."""
    print(printable(str(text), keep="\n"), file=file or sys.stdout, flush=True)


def size(count: int) -> str:
    """Format bytes: `1.2 GB`."""
    if 0 < count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Format seconds: `18.5 s`, `3 min 5 s`, `1 h 2 min`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: `1 trial`, `2 trials`, `1,000 trials`."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def enumerated(names: Sequence[str], most: int = 5) -> str:
    """Join names, but only the first `most`: `a, b, c, d, e and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def natural(name: str) -> list[str | int]:
    """Sorting key that puts L2 before L16."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def total(value: str) -> int | None:
    """Sum of the integers in a text such as `64-128`; None for other texts."""
    return sum(map(int, value.split("-"))) if re.fullmatch(r"\d+(-\d+)*", value) else None


def by_size(value: str) -> tuple[float, list[str | int]]:
    """Sorting key for settings as texts: numbers by size, lists of numbers by their sum, then words."""
    try:
        return float(value), []
    except ValueError:
        return total(value) or math.inf, natural(value)


def symbol(key: str) -> str:
    """K, L or P for the key that it abbreviates; other keys unchanged."""
    return {"filters_per_layer": "K", "layers_per_block": "L", "pool_every": "P"}.get(key, key)


def setting_text(value: object) -> str:
    """Format a setting's value: `64-128`, `none`, `0.001`, `true`."""
    if isinstance(value, tuple | list):
        return "-".join(map(setting_text, value)) or "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are the same setting
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table of `printable` texts, with numbers right-aligned and words left-aligned."""
    columns = []
    for column in zip(*rows, strict=True):
        head, *cells = map(printable, column)
        width = max(map(len, (head, *cells)))
        is_number = all(cell[:1].isdigit() or cell[:1] in ("-", "") for cell in cells)
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in (head, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def named(error: BaseException) -> str:
    """Type and message of an error in one line: `ValueError: no such layer`."""
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


def digest(text: str) -> str:
    """Hash of a text: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
