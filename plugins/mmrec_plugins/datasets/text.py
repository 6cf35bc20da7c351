"""Cleaning titles and descriptions that were scraped from web pages."""

import html
import re

MAX_RAW_CHARS = 20_000
"""Of a longer text only the beginning is looked at."""
MAX_CHARS = 4_000
_TAG = re.compile(r"<[!/a-zA-Z][^<>]*>")
_CONTROL = dict.fromkeys([*range(9), *range(14, 32), 127, *range(128, 160)])
# Pages whose title was taken from a script or a style sheet (all over the 2018 files).
_PAGE_CODE = re.compile(
    r"aPageStart|getTime\(|\bue_t0\b|amznJQ|document\.(?:write|getElement)"
    r"|function\s*\(\w*\)\s*\{|\.a-[\w-]+\s*\{|<(?:style|script)\b"
)


def clean(text: str, limit: int = MAX_CHARS) -> str:
    """Return plain text: no tags, entities resolved, white space collapsed, at most `limit`."""
    plain = text[:MAX_RAW_CHARS]
    # Twice, because the publishers' files hold tags and entities that were escaped once more.
    for _ in range(2):
        if "<" in plain:
            plain = _TAG.sub(" ", _without_code(plain))
        if "&" not in plain:
            break
        plain = html.unescape(plain)
    plain = " ".join(plain.translate(_CONTROL).split())
    if not plain.isascii():
        plain = plain.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return plain if len(plain) <= limit else plain[:limit].rsplit(" ", 1)[0]


def is_page_code(title: str) -> bool:
    """Tell whether a title is JavaScript or CSS of the page it was taken from."""
    return bool(_PAGE_CODE.search(title))


def _without_code(text: str) -> str:
    """Drop script and style elements; plain searches, so that hostile text costs no more."""
    for name in ("script", "style"):
        lower = text.lower()
        if f"<{name}" not in lower or len(lower) != len(text):
            continue
        kept, at = [], 0
        while (start := lower.find(f"<{name}", at)) >= 0:
            kept.append(text[at:start])
            end = lower.find(f"</{name}", start)
            at = len(text) if end < 0 else end
            if end < 0:
                break
        text = " ".join([*kept, text[at:]])
    return text


def repair_latin(text: str) -> str:
    """Undo UTF-8 that was read as Latin-1: the 2014 files print the bytes of Python 2 strings."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
