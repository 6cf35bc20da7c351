"""Text of unknown origin on its way into pages and scripts."""

import html
import json
import re
from importlib import resources
from string import Template
from typing import Any

_UNSAFE = {sign: f"\\u{ord(sign):04x}" for sign in "<>&"}


def text(value: object) -> str:
    """Return a value as HTML text that is also safe in a quoted attribute."""
    return html.escape(str(value))


def script(name: str, value: Any) -> str:  # noqa: ANN401 - anything JSON can hold
    """Return a script file that hands a value to the page: `mmrecData(name, json)`.

    It is ASCII, and holds no `<`, `>` or `&`, so that it cannot be read as HTML, however it is
    embedded or served. The value is parsed as JSON and never runs.

    Args:
        name: chosen by us, never by data.
        value: without NaN, which JSON has not.
    """
    parsed = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign, escape in _UNSAFE.items():
        parsed = parsed.replace(sign, escape)
    literal = parsed.replace("\\", "\\\\").replace("'", "\\'")
    return f"mmrecData({json.dumps(name)},'{literal}');\n"


def slug(value: str) -> str:
    """Return a file name's part made of letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:60] or "data"


def page(**parts: str) -> str:
    """Return a page of the site from its parts, which are HTML already."""
    return Template(static("page.html")).substitute(parts)


def static(name: str) -> str:
    """Return a file that comes with this package."""
    return (resources.files("mmrec_bench.report") / "static" / name).read_text(encoding="utf-8")
