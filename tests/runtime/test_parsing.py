"""JSON and TOML from someone else: a value or one error, within a second."""

import time
import tomllib

import pytest

from curricula.runtime.parsing import MAX_DOTS, MAX_NESTING, parse_json, parse_toml, read_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 5000, "nested too deeply"),
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e999", "the number '1e999' is too large"),
        ("1" * 5000, "too many digits"),
        ("1" * 20, "too many digits"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        ("\0", "Expecting value"),
        ('{"a": 1} x', "Extra data"),
    ],
)
def test_json_out_of_bounds_is_one_line(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        parse_json(text)
    assert "\n" not in str(raised.value)


def test_what_json_may_hold_is_read():
    text = '{"a": [1, -0.5, 1e300, 4611686018427387904, true, null], "b": {"": "\\ud800"}}'
    assert parse_json(text) == {
        "a": [1, -0.5, 1e300, 2**62, True, None],
        "b": {"": "\ud800"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "[" * 60 + "]" * 60, "nested too deeply"),
        (".".join("a" * 60) + " = 1", "nested too deeply"),
        ("a = " + "1" * 5000, "too many digits"),
        ("a = 0x" + "f" * 5000, "too many digits"),
        ("a = 9223372036854775808", "too many digits"),
        ("a = 1\na = 2", "the key 'a' twice"),
        ("b = 1\na = [\n'x = 1',\n]\na = [\n'b = 2',\n]\n", "the key 'a' twice"),
        ("[x]\na.'b' = 1\na.'b' = 2\n", "the key \"a.'b'\" twice"),
        ("x = 1\n[x]\na = 2\n", "the key 'x' twice"),
        ("a = 2021-02-30", "Invalid date"),
        ("a = '\x01'", "invalid character"),
        ("\0", "Invalid"),
    ],
)
def test_toml_out_of_bounds_is_one_line(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        parse_toml(text)
    assert "\n" not in str(raised.value)


LONG = ".".join(["a"] * 30_000)


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG} = 1",
        f"[{LONG}]\nb = 1",
        f"x = {{{LONG} = 1}}",
        " . ".join(['"a"'] * 30_000) + " = 1",
        ".".join(['"\\""'] * 30_000) + " = 1",
        f'x = """ " """\n{LONG} = 1',
        f'x = {{b = """ " """, {LONG} = 1}}',
        f'x = {{b = """a"""", {LONG} = 1}}',
        f"x = {{b = '''a'''', {LONG} = 1}}",
        f'# """\n{LONG} = 1\n# """',
        f"# '\n{LONG} = 1",
        f"x = '\"'\n{LONG} = 1",
    ],
)
def test_a_dotted_key_takes_no_quadratic_time(text):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=f"a line has more than {MAX_DOTS} dots"):
        parse_toml(text)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ['"' * 50_000, '\\"' * 50_000, "'" * 49_999, '"\\' * 50_000])
def test_unclosed_texts_take_no_quadratic_time(text):
    began = time.perf_counter()
    with pytest.raises(ValueError):
        parse_toml(f"a = {text}")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        f'a = "{LONG}"',
        f"a = '{LONG}'",
        f'a = """{LONG}"""',
        f"a = '''\n{LONG}'''",
        f"# {LONG}",
        f'a = "\\"{LONG}"',
        "a = [" + "0.5, " * (MAX_DOTS - 1) + "]",
        ".".join("a" * (MAX_NESTING - 1)) + " = 1",
        "a = nan\nb = -inf\nc = 2021-02-03T04:05:06Z",
    ],
)
def test_what_toml_may_hold_is_read(text):
    assert repr(parse_toml(text)) == repr(tomllib.loads(text))


def test_a_file_is_read_without_its_mark_and_within_a_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn")
    assert read_text(path) == "grün"
    with pytest.raises(OSError, match="larger than 7 bytes"):
        read_text(path, 7)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError):
        read_text(path)
    with open(path, "wb") as stream:
        stream.truncate(2**40)  # takes no space
    with pytest.raises(OSError, match="larger than"):
        read_text(path)
