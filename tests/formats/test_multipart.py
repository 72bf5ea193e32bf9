import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.multipart import MAX_PARTS, FilePart, Form, parse_form, typed
from tests.formats.forms import sent

TYPE = "multipart/form-data; boundary=xYzZY"
CANARY = "my-secret-plan"


def part(headers: str, content: bytes | str = b"v") -> bytes:
    """One part with its delimiter before it; lines of `headers` end in LF here."""
    body = content.encode() if isinstance(content, str) else content
    return b"--xYzZY\r\n" + headers.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body + b"\r\n"


def field(name: str, content: bytes | str = b"v") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', content)


def file(name: str, content: bytes = b"RIFF", filename: str = "a.wav") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"; filename="{filename}"', content)


END = b"--xYzZY--\r\n"


def refused(data: bytes, content_type: str = TYPE) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        parse_form(data, content_type)
    assert CANARY not in caught.value.message
    return caught.value


def test_a_form_of_a_real_client_is_read() -> None:
    data, content_type = sent(
        data={"model": "whisper-1", "stream": "true", "include[]": ["logprobs", "x"], "prompt": "Grüße 🌍"},
        files={"file": ('ü".mp3', b"\xff\xfbabc", "audio/mpeg")},
    )

    assert parse_form(data, content_type) == {
        "model": "whisper-1",
        "stream": "true",
        "include[]": ["logprobs", "x"],
        "prompt": "Grüße 🌍",
        "file": FilePart(filename="ü%22.mp3", content_type="audio/mpeg", content=b"\xff\xfbabc"),
    }


def test_a_model_after_a_large_file_is_found() -> None:
    content = bytes(range(256)) * 100_000
    data = file("file", content) + field("model", "whisper-1") + END

    form = parse_form(data, TYPE)

    assert form["model"] == "whisper-1"
    assert isinstance(form["file"], FilePart)
    assert form["file"].content == content


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=xYzZY", b"xYzZY"),
        ('Multipart/Form-Data;boundary="xYzZY"', b"xYzZY"),
        ("multipart/form-data; charset=utf-8; boundary=xYzZY", b"xYzZY"),
        ("multipart/form-data; Boundary=----WebKitFormBoundaryA1", b"----WebKitFormBoundaryA1"),
        ('multipart/form-data; boundary="a b/c:d=e?(f)"', b"a b/c:d=e?(f)"),
        (f"multipart/form-data; boundary={'x' * 70}", b"x" * 70),
    ],
)
def test_boundaries_of_real_clients_are_read(content_type: str, boundary: bytes) -> None:
    data = (field("model", "m") + END).replace(b"xYzZY", boundary)

    assert parse_form(data, content_type) == {"model": "m"}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=xYzZY", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        ("multipart/form-data; boundary=xYzZY; boundary=other", 400),
        ("multipart/form-data; boundary=xYzZY; Boundary=other", 400),
        ("multipart/form-data; boundary*=utf-8''xYzZY", 400),
        ("multipart/form-data; boundary*0=xYz; boundary*1=ZY", 400),
        ("multipart/form-data; boundary=xYz ZY", 400),
        ("multipart/form-data; boundary=xYz:ZY", 400),
        ('multipart/form-data; boundary="xYzZY "', 400),
        ('multipart/form-data; boundary="xYz\\ZY"', 400),
        ('multipart/form-data; boundary="xYzZY', 400),
        ("multipart/form-data; boundary=xYzZY, x", 400),
        ("multipart/form-data; boundary=xYzZY; x=1", 400),
        ("multipart/form-data; boundary xYzZY", 400),
        ("multipart/form-data; boundary=xÿzZY", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
    ],
)
def test_a_boundary_with_two_readings_is_refused(content_type: str, status: int) -> None:
    assert refused(field("model") + END, content_type).status == status


DISPOSITION = "Content-Disposition: form-data; name=model"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(field("model") + field("model") + END, id="twice"),
        pytest.param(field("model") + field("Model") + END, id="twice in other case"),
        pytest.param(field("MODEL") + END, id="another case of a known field"),
        pytest.param(field("custom") + field("Custom") + END, id="unknown field in two cases"),
        pytest.param(field("language") + field("language") + END, id="any field twice"),
        pytest.param(field("model[]") + END, id="a model in brackets"),
        pytest.param(field("purpose[0]") + END, id="a purpose in brackets"),
        pytest.param(file("file") + file("file") + END, id="two files"),
        pytest.param(file("image") + file("image[]") + END, id="with and without brackets"),
        pytest.param(field("x[a]") + field("x[A]") + END, id="brackets that differ in case"),
        pytest.param(field("_charset_", "utf-16") + END, id="a charset field"),
        pytest.param(b"preamble\r\n" + field("model") + END, id="preamble"),
        pytest.param(b"\r\n" + field("model") + END, id="empty line before"),
        pytest.param(field("model") + END + b"epilogue", id="epilogue"),
        pytest.param(field("model") + END + field("model") + END, id="a form after the form"),
        pytest.param(field("model"), id="no end"),
        pytest.param(field("model") + b"--xYzZY-", id="half an end"),
        pytest.param(field("model")[:-2] + END, id="no line before the end"),
        pytest.param(field("model") + b"--xYzZY --\r\n", id="space in the end"),
        pytest.param(field("a", b"x\n--xYzZY\r\ny") + END, id="delimiter after LF"),
        pytest.param(field("a", b"x\r--xYzZY\r\ny") + END, id="delimiter after CR"),
        pytest.param(field("a", b"x--xYzZY--") + END, id="delimiter in a line"),
        pytest.param(field("a", b"x\r\n--xYzZY  \r\ny") + END, id="padded delimiter"),
        pytest.param(field("a", b"x\r\n--xYzZYother\r\n") + END, id="longer delimiter"),
        pytest.param((field("model") + END).replace(b"\r\n", b"\n"), id="LF alone"),
        pytest.param(part("X-Y: z"), id="no disposition"),
        pytest.param(part("Content-Disposition: form-data") + END, id="no name"),
        pytest.param(part('Content-Disposition: form-data; name=""') + END, id="empty name"),
        pytest.param(part("Content-Disposition: attachment; name=model") + END, id="another disposition"),
        pytest.param(part(f"{DISPOSITION}; name=x") + END, id="two names"),
        pytest.param(part(f"{DISPOSITION}; Name=x") + END, id="two names in other case"),
        pytest.param(part(f"{DISPOSITION}; x=1") + END, id="unknown parameter"),
        pytest.param(part("Content-Disposition: form-data; name*=utf-8''model") + END, id="name*"),
        pytest.param(part('Content-Disposition: form-data; name="mo%64el"') + END, id="percent"),
        pytest.param(part('Content-Disposition: form-data; name="mo\\del"') + END, id="backslash"),
        pytest.param(part('Content-Disposition: form-data; name=" model"') + END, id="space"),
        pytest.param(part('Content-Disposition: form-data; name="model";x') + END, id="junk"),
        pytest.param(part(f"{DISPOSITION}\n{DISPOSITION}") + END, id="two dispositions"),
        pytest.param(part("Content-Disposition : form-data; name=model") + END, id="space before colon"),
        pytest.param(part("Content-Disposition: form-data;\n name=model") + END, id="folded header"),
        pytest.param(part(f"{DISPOSITION}\nX: a\rContent-Type: b") + END, id="CR in a header"),
        pytest.param(part(f"{DISPOSITION}\nX: a\u2028b") + END, id="separator in a header"),
        pytest.param(part(f'{DISPOSITION}; filename=""') + END, id="empty file name"),
        pytest.param(part(f"{DISPOSITION}; filename*=utf-8''x") + END, id="only filename*"),
        pytest.param(part(f"{DISPOSITION}; filename=y; filename*=utf-8''x") + END, id="two file names"),
        pytest.param(part(f"{DISPOSITION}; filename=x; filename*=latin1''x") + END, id="filename* in latin1"),
        pytest.param(part(f"{DISPOSITION}; filename==?utf-8?B?!?=; filename*=utf-8''x") + END, id="no word"),
        pytest.param(part(f"{DISPOSITION}\nContent-Length: 5") + END, id="wrong length"),
        pytest.param(field("model", b"\xff") + END, id="not UTF-8"),
        pytest.param(part("\n".join([DISPOSITION, *(f"X-{x}: 1" for x in "abcdefgh")])) + END, id="headers"),
        pytest.param(part(f"{DISPOSITION}\nX: {'x' * 5000}") + END, id="long header"),
        pytest.param(b"".join(field(f"f{n}") for n in range(MAX_PARTS + 1)) + END, id="too many parts"),
        pytest.param(b"--xYzZ", id="nothing"),
    ],
)
def test_a_form_with_two_readings_is_400(data: bytes) -> None:
    error = refused(data)

    assert (error.status, error.code) == (400, Reason.BODY_MALFORMED)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: text/plain; charset=latin1; x",
        "Content-Type: application/octet-stream",
        "Content-Type: multipart/mixed; boundary=a",
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: quoted-printable",
    ],
)
def test_a_part_that_some_would_decode_is_415(header: str) -> None:
    error = refused(part(f"{DISPOSITION}\n{header}", "d2hpc3Blcg==") + END)

    assert (error.status, error.code) == (415, Reason.ENCODING_UNSUPPORTED)
    assert "model" in error.message


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Type: text/plain; charset=utf-8\nContent-Disposition: form-data; name=model",
        'content-disposition: form-data; name="model"\nContent-Transfer-Encoding: 8bit',
        'Content-Disposition: form-data;name="model"\nContent-Length: 1',
    ],
)
def test_harmless_headers_of_other_clients_pass(headers: str) -> None:
    assert parse_form(part(headers) + END, TYPE) == {"model": "v"}


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        ("filename=a.mp3; filename*=utf-8''a.mp3", "a.mp3"),
        ("filename=\"a b.mp3\"; filename*=UTF-8'en'a%20b.mp3", "a b.mp3"),
        ("filename=\"=?utf-8?B?w7wubXAz?=\"; filename*=utf-8''%C3%BC.mp3", "=?utf-8?B?w7wubXAz?="),
    ],
)
def test_a_file_named_alike_twice_is_read(parameters: str, filename: str) -> None:
    form = parse_form(part(f"Content-Disposition: form-data; name=file; {parameters}", b"x") + END, TYPE)

    assert form == {"file": FilePart(filename=filename, content_type="", content=b"x")}


def test_an_empty_body_is_missing() -> None:
    assert refused(b"").code == Reason.BODY_MISSING


def test_a_form_cut_anywhere_is_refused() -> None:
    data = field("model", "m") + file("file") + END

    assert parse_form(data.removesuffix(b"\r\n"), TYPE) == parse_form(data, TYPE)
    for place in range(len(data) - 2):
        refused(data[:place])


def test_no_text_of_the_body_is_told() -> None:
    for data in (
        field(CANARY, b"\xff") + END,
        field("model", CANARY) * 2 + END,
        part(f"{DISPOSITION}\nX-{CANARY}: {CANARY}\r") + END,
        part(f"Content-Disposition: {CANARY}; name={CANARY}") + END,
        file("file", filename=CANARY) + file("file", filename=CANARY),
        CANARY.encode(),
    ):
        with contextlib.suppress(RequestRefused):
            parse_form(data, TYPE)
            pytest.fail("must be refused")


def test_a_form_becomes_the_body_it_stands_for() -> None:
    form: Form = {"stream": "True", "n": "3", "model": "m"}

    body = typed(form, flags=frozenset({"stream", "x"}), counts=frozenset({"n"}))

    assert body == {"stream": True, "n": 3, "model": "m"}


@pytest.mark.parametrize(
    "form",
    [
        {"stream": "1"},
        {"stream": "yes"},
        {"stream": " true"},
        {"stream": ""},
        {"n": "0"},
        {"n": "+1"},
        {"n": "1.0"},
        {"n": "\N{ARABIC-INDIC DIGIT ONE}"},
        {"n": "1\n"},
        {"n": ""},
        {"n": FilePart(filename="n", content_type="", content=b"1")},
    ],
)
def test_a_value_that_some_would_take_for_another_is_refused(form: Form) -> None:
    with pytest.raises(RequestRefused):
        typed(form, flags=frozenset({"stream"}), counts=frozenset({"n"}))


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def base_name(pair: tuple[str, bytes]) -> str:
    return pair[0].removesuffix("[]")


names = st.builds("{}{}".format, st.text("abcdefgh_", min_size=1, max_size=9), st.sampled_from(["", "[]"]))
pairs = st.lists(
    st.tuples(names, st.binary() | st.text().map(str.encode)),
    unique_by=base_name,
    max_size=6,
)


@given(pairs, st.sampled_from(["a", "--", "-", "xYzZY", "'()+_.-'", "model"]), st.booleans())
def test_what_is_read_is_what_was_written_or_nothing(
    written: list[tuple[str, bytes]],
    boundary: str,
    is_file: bool,  # noqa: FBT001 - hypothesis passes by position
) -> None:
    """Hostile boundaries included: contents may hold them."""
    extra = '; filename="f"' if is_file else ""
    delimiter = b"--" + boundary.encode()
    parts = [
        f'\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in written
    ]
    data = delimiter + delimiter.join([*parts, b"--"])

    try:
        form = parse_form(data, f'multipart/form-data; boundary="{boundary}"')
    except RequestRefused:
        assert any(
            delimiter in content or (not is_file and not is_utf8(content)) or name.startswith("_charset_")
            for name, content in written
        )
        return

    read = [(name, value[0] if isinstance(value, list) else value) for name, value in form.items()]
    assert [
        (name, value.content if isinstance(value, FilePart) else str(value).encode()) for name, value in read
    ] == written


@given(
    st.binary() | st.lists(st.sampled_from([b"--xYzZY", b"\r\n", DISPOSITION.encode(), b"--", b":", b";"]))
)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes | list[bytes]) -> None:
    with contextlib.suppress(RequestRefused):
        parse_form(data if isinstance(data, bytes) else b"".join(data), TYPE)


@given(st.text())
def test_no_content_type_raises_anything_but_a_refusal(content_type: str) -> None:
    for value in (content_type, f"multipart/form-data; boundary={content_type}"):
        with contextlib.suppress(RequestRefused):
            parse_form(field("model") + END, value)
