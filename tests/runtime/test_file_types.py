"""What a file is is read from its bytes; a sender may only say what it has to be."""

import time
from contextlib import suppress

import pytest

from moorline.errors import InvalidMessage
from moorline.file_types import checked_type
from moorline.settings import Settings
from tests.pictures import AVI, EXE, GIF, HTML, JPEG, PDF, SVG, WEBP, png

ALLOWED = Settings().file_types


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(), "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (WEBP, "image/webp"),
        (PDF, "application/pdf"),
        (b"a,b\n1,2\n", "text/plain"),
        ("Grüße \N{GRINNING FACE}\n".encode(), "text/plain"),
        (b"\xef\xbb\xbfwith a mark", "text/plain"),
        (b"BM is how a bitmap begins, and this text", "text/plain"),
        (b"2 < 3 and <3", "text/plain"),
    ],
)
@pytest.mark.parametrize("claimed", [None, "application/octet-stream"])
def test_a_file_is_what_its_bytes_are(data: bytes, kind: str, claimed: str | None) -> None:
    assert checked_type(data, claimed=claimed, allowed=ALLOWED) == kind


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (png(), "image/png"),
        (png(), "IMAGE/PNG; q=1"),
        (JPEG, "image/jpg"),
        (WEBP, "image/*"),
        (b"a,b\n1,2\n", "text/csv"),
        (b'{"a": 1}', "application/json"),
    ],
)
def test_a_claim_that_fits_is_accepted(data: bytes, claimed: str) -> None:
    checked_type(data, claimed=claimed, allowed=ALLOWED)


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (JPEG, "image/png"),
        (EXE, "image/png"),
        (PDF, "image/*"),
        (HTML, "image/*"),
        (SVG, "image/*"),
        (HTML, "text/plain"),
        (b"just text", "image/*"),
        (b"just text", "application/pdf"),
        (AVI, "image/*"),
        (AVI, "image/webp"),
        (png(), "text/plain"),
        (png() + HTML, "text/html"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(data: bytes, claimed: str) -> None:
    with pytest.raises(InvalidMessage):
        checked_type(data, claimed=claimed, allowed=ALLOWED)


@pytest.mark.parametrize(
    "data",
    [
        *(HTML, b"  <script>alert(1)</script>", b"\xef\xbb\xbf<html>", b"<a href='javascript:x'>"),
        *(SVG, b"<?xml version='1.0'?>" + SVG, b"<!-- a picture -->" + SVG),
        *(b"<" + b"a" * 90 + b">", b"\n" * 1_000 + b"<script>", AVI),
        *(EXE + png()[-12:], EXE + PDF, b"PK\x03\x04" + bytes(60) + b"\xff\xd9", "<html>".encode("utf-16")),
        *(EXE, b"PK\x03\x04" + bytes(60), b"\x00\x01\x02", b"text with \x00 in it", b"\xff\xfe\xfd", b""),
    ],
)
def test_what_is_not_accepted_is_refused_whatever_it_is_called(data: bytes) -> None:
    for claimed in (None, "text/plain", "image/*", "text/html", "image/svg+xml"):
        with pytest.raises(InvalidMessage):
            checked_type(data, claimed=claimed, allowed=ALLOWED)


def test_the_setting_says_what_is_accepted() -> None:
    assert checked_type(JPEG, claimed=None, allowed=Settings(file_types=frozenset({"image/jpeg"})).file_types)
    with pytest.raises(InvalidMessage, match=r"These are: image/jpeg \(MOORLINE_FILE_TYPES\)"):
        checked_type(png(), claimed=None, allowed={"image/jpeg"})


@pytest.mark.parametrize(
    "data", [b"<a" * 5_000_000, b"<" + b"a" * 10_000_000, b" " * 10_000_000, JPEG + bytes(10_000_000)]
)
def test_no_file_takes_long(data: bytes) -> None:
    begun = time.process_time()
    with suppress(InvalidMessage):
        checked_type(data, claimed=None, allowed=ALLOWED)
    assert time.process_time() - begun < 0.15
