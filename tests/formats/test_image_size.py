import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.formats.images import HEADER_BYTES, size_of_base64, size_of_bytes, size_of_url

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + bytes(9)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(3)
FRAME = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, 480, 640, 3) + bytes(9)
EXIF = b"\xff\xe1" + struct.pack(">H", 2 + 900) + b"\xff\xc0" * 450
JPEG = b"\xff\xd8" + EXIF + b"\xff\xff\xff\xdb" + struct.pack(">H", 67) + bytes(65) + FRAME
WEBP_LOSSY = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0" + bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 640, 480)
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 639 | 479 << 14)
WEBP_EXTENDED = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0" + bytes(4) + b"\x7f\x02\x00\xdf\x01\x00"
IMAGES = [PNG, GIF, JPEG, WEBP_LOSSY, WEBP_LOSSLESS, WEBP_EXTENDED]


@pytest.mark.parametrize("image", IMAGES)
def test_the_size_is_read_from_the_header(image: bytes) -> None:
    assert size_of_bytes(image) == (640, 480)
    assert size_of_url("data:image/any;base64," + base64.b64encode(image).decode()) == (640, 480)


@pytest.mark.parametrize("image", IMAGES)
def test_a_cut_image_has_no_size_or_the_same(image: bytes) -> None:
    for end in range(len(image)):
        assert size_of_bytes(image[:end]) in (None, (640, 480))


def test_only_the_beginning_of_an_image_is_decoded() -> None:
    behind = b"\xff\xd8" + (b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998)) + FRAME
    assert len(behind) > HEADER_BYTES

    assert size_of_bytes(behind) == (640, 480)
    assert size_of_base64(base64.b64encode(behind).decode()) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.com/cat.png",
        "http://169.254.169.254/latest",
        "data:image/png,raw",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,ü",
        "data:application/pdf;base64,JVBERi0=",
        "",
    ],
)
def test_what_carries_no_image_has_no_size(url: str) -> None:
    assert size_of_url(url) is None


def test_a_size_of_zero_is_no_size() -> None:
    assert size_of_bytes(b"GIF89a" + bytes(7)) is None


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF8", b"\xff\xd8\xff", b"RIFF____WEBP"]), st.binary())
def test_no_header_raises(magic: bytes, rest: bytes) -> None:
    size_of_bytes(magic + rest)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    size_of_base64(text)
    size_of_url("data:image/png;base64," + text)


def test_a_jpeg_of_endless_segments_has_no_size() -> None:
    assert size_of_bytes(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 10_000 + FRAME) is None
