"""Cleaning of scraped titles and descriptions."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_plugins.datasets.text import MAX_CHARS, clean, is_page_code, repair_latin


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("  Red \n Mug\t", "Red Mug"),
        ("Salt &amp; Pepper", "Salt & Pepper"),
        ("Salt &amp;amp; Pepper", "Salt & Pepper"),
        ("A <b>red</b><br/>mug", "A red mug"),
        ("&lt;b&gt;red&lt;/b&gt; mug", "red mug"),
        ("<script>var x = 1 < 2;</script>Mug", "Mug"),
        ("Mug<STYLE type='a'>.b {c: d}</style> two", "Mug two"),
        ("Mug <script>never ends", "Mug"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("a\0b\x1b[31mc\x85", "ab[31mc"),
        ("caf\ud800é", "caf?é"),
        ("<!-- note -->Mug", "Mug"),
        ("", ""),
    ],
)
def test_text_becomes_plain(raw: str, plain: str) -> None:
    assert clean(raw) == plain


def test_long_text_is_cut_between_words() -> None:
    assert clean("word " * 5000).endswith("word")
    assert len(clean("word " * 5000)) <= MAX_CHARS
    assert len(clean("x" * 50_000)) <= MAX_CHARS


@given(st.text(alphabet=st.sampled_from("<>&;#x0/scriptyle! \n\0\ud800é"), max_size=200))
def test_any_text_becomes_printable_utf8(raw: str) -> None:
    plain = clean(raw)
    assert plain.encode("utf-8").decode() == plain
    assert plain == " ".join(plain.split())


@pytest.mark.parametrize("part", ["<script", "<", "<a", "&", "&#", "</script", "<!--", "&lt;"])
def test_hostile_text_takes_no_time(part: str) -> None:
    begun = time.perf_counter()
    clean(part * 100_000)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    "title",
    [
        "\n\nvar aPageStart = (new Date()).getTime();",
        "var ue_t0=ue_t0||+new Date();",
        "(function(a){ return a })",
        ".a-box-inner {padding: 0}",
        "<style>b{}</style>",
    ],
)
def test_page_code_is_told(title: str) -> None:
    assert is_page_code(title)


@pytest.mark.parametrize(
    "title",
    [
        "Multi-function (4 in 1) Mug",
        "JavaScript: The Good Parts",
        "Var. 3 = Red",
        "Dr. document (A4)",
    ],
)
def test_titles_that_only_look_like_code_are_kept(title: str) -> None:
    assert not is_page_code(title)


def test_utf8_read_as_latin1_is_repaired() -> None:
    assert repair_latin("Caf\xc3\xa9") == "Café"
    assert repair_latin("Café") == "Café"
    assert repair_latin("日本") == "日本"
