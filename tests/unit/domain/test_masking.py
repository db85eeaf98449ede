"""Values are masked wherever they stand, in whatever pieces they come, plain and in base 64; nothing else is."""

from __future__ import annotations

import base64
import itertools
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.domain.masking import Masks, Stream, masked_words, patterns_of

CANARY = b"canary-7d1f+/=!x"
MASKS = Masks(patterns_of([CANARY + b"\n"]))


def streamed(masks: Masks, pieces: list[bytes]) -> bytes:
    stream = Stream(masks)
    return b"".join([*map(stream.passed, pieces), stream.rest()])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in itertools.pairwise(ends)]


@given(before=st.binary(max_size=40), after=st.binary(max_size=40), places=st.lists(st.integers(0, 200), max_size=8))
def test_a_value_is_masked_wherever_it_is_cut(before: bytes, after: bytes, places: list[int]) -> None:
    text = before + CANARY + after
    shown = streamed(MASKS, cut(text, places))
    assert CANARY not in shown
    assert len(shown) == len(text)
    assert shown == MASKS.masked(text)


@given(before=st.binary(max_size=30), after=st.binary(max_size=30), places=st.lists(st.integers(0, 200), max_size=8))
def test_so_is_its_base_64_within_other_bytes(before: bytes, after: bytes, places: list[int]) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + CANARY + after)
        shown = streamed(MASKS, cut(encoded, places))
        assert len(shown) == len(encoded)
        # What is left at the edges is less than a group of four on each side.
        assert shown.count(b"*") >= len(CANARY) * 4 // 3 - 4


@pytest.mark.parametrize("value", [CANARY, CANARY + b"\n"])
def test_its_own_base_64_is_masked_whole(value: bytes) -> None:
    encoded = base64.b64encode(value)
    assert set(MASKS.masked(encoded)) <= set(b"*") | set(b"=") | ({encoded[-3]} if value.endswith(b"\n") else set())
    assert b"***********" in MASKS.masked(encoded)


def test_the_base_64_of_a_long_value_is_masked_in_lines() -> None:
    value = bytes(range(32, 127)) * 3
    masks = Masks(patterns_of([value]))
    assert set(masks.masked(base64.encodebytes(value))) == set(b"*\n")


def test_each_longer_line_of_a_value_is_masked_by_itself() -> None:
    masks = Masks(patterns_of([b"-----BEGIN-----\nMIIEvQIBADANBg\nshort\n"]))
    assert masks.masked(b"> MIIEvQIBADANBg < short") == b"> ************** < short"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_what_is_no_secret_passes_as_it_is(text: bytes, places: list[int]) -> None:
    masks = Masks(patterns_of([b"\x00never-in-such-a-text\xff"]))
    assert streamed(masks, cut(text, places)) == text


def test_too_short_a_value_and_no_value_mask_nothing() -> None:
    assert patterns_of([b"", b"abc", b"a\n"]) == []
    assert streamed(Masks(()), [b"abc", b"def"]) == b"abcdef"


def test_only_what_may_be_a_beginning_is_held_back() -> None:
    stream = Stream(MASKS)
    assert stream.passed(b"step 1: can") == b"step 1: "
    assert stream.passed(b" do\n") == b"can do\n"
    assert stream.passed(b"canary-7") == b""
    assert stream.passed(CANARY[8:] + b"\n") == b"*" * len(CANARY) + b"\n"


ODD = 'p&ss/w\u00f6rd "it\'s"\t<1>'


@pytest.mark.parametrize(
    "written",
    [
        quote(ODD),
        quote(ODD, safe=""),
        quote_plus(ODD),
        re.sub("%..", lambda found: found[0].lower(), quote(ODD)),
        json.dumps({"password": ODD}),
        json.dumps([ODD], ensure_ascii=False),
        repr({"password": ODD}),
        ascii(ODD),
    ],
    ids=ascii,
)
def test_a_value_is_masked_as_it_stands_in_urls_in_json_and_in_python(written: str) -> None:
    masked = Masks(patterns_of([ODD.encode()])).masked(written.encode())
    assert b"***********" in masked
    assert b"ss" not in masked.replace(b"password", b"")


def test_what_is_no_text_is_masked_in_urls() -> None:
    value = bytes(range(128, 140))
    assert set(Masks(patterns_of([value])).masked(quote(value).encode())) == set(b"*")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (f"bad name: {CANARY.decode()}", f"bad name: {'*' * len(CANARY)}"),
        (f"bad name: {CANARY.decode()[:9]}", "bad name: *********"),
        ("bad name: cat", "bad name: cat"),
        ("bad name: a \udcff c", "bad name: a ??? c"),
    ],
    ids=ascii,
)
def test_words_that_were_cut_off_within_a_value_show_no_part_of_it(words: str, shown: str) -> None:
    assert masked_words(words, [CANARY]).replace("\ufffd", "?") == shown
