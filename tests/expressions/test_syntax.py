"""The grammar: what is parsed, how it prints, and where an error points."""

import contextlib
import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.errors import UserError
from curricula.expressions.syntax import (
    Argument,
    Call,
    Chain,
    ExpressionError,
    Number,
    Pair,
    Quoted,
    Union,
    calls,
    chain,
    parse,
    parse_call,
    parse_value,
    union,
)

keys = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}(-[A-Za-z0-9_]{1,3})?", fullmatch=True)
names = keys | st.tuples(keys, keys).map("/".join)
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])) | st.text("\\\"' a(,=)")
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.builds(Number, finite) | st.builds(
    Number,
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
)


def arguments_of(values):
    positional = st.lists(st.builds(Argument, values), max_size=2)
    keywords = st.lists(st.tuples(keys, values), max_size=3, unique_by=lambda pair: pair[0])
    return st.builds(
        lambda a, b: (*a, *(Argument(value, key) for key, value in b)), positional, keywords
    )


def composites(children):
    values = numbers | st.builds(Pair, numbers, numbers) | st.builds(Quoted, texts) | children
    return (
        st.builds(Call, names, arguments_of(values))
        | st.lists(children, min_size=2, max_size=3).map(lambda parts: chain(*parts))
        | st.lists(children, min_size=2, max_size=3).map(lambda parts: union(*parts))
    )


expressions = st.recursive(st.builds(Call, names), composites, max_leaves=12)


@given(expressions)
def test_printing_and_parsing_are_inverse(expression):
    assert parse(str(expression)) == expression


@given(texts)
def test_a_text_in_quotes_of_either_kind_is_that_text(text):
    escaped = text.replace("\\", r"\\")
    for quote in "\"'":
        written = quote + escaped.replace(quote, "\\" + quote) + quote
        assert parse_value(written) == parse_value(f" {written}\t") == Quoted(text)
        assert parse_call(f"f({written}, b)").arguments[0] == Argument(Quoted(text))


@given(st.text(alphabet="rotpgd0123456789:+|()=,./-e \\\"'", max_size=30))
def test_any_text_is_an_expression_or_one_clear_line(text):
    message = ""
    try:
        assert parse(str(parse(text))) == parse(text)
    except ExpressionError as error:
        message = str(error)
    assert "\n" not in message


@given(st.floats(0, 1))
def test_the_readable_form_of_a_number_is_exactly_that_number(value):
    assert Number.of(value).value == value
    assert parse_call(f"f:{Number.of(value)}").arguments[0].value.value == value


def test_chain_binds_tighter_than_union():
    tree = parse("rot+pgd|trans")
    assert tree == Union((Chain((Call("rot"), Call("pgd"))), Call("trans")))
    assert parse("rot+(pgd|trans)") == Chain((Call("rot"), Union((Call("pgd"), Call("trans")))))


def test_the_two_spellings_of_a_budget_are_one():
    assert parse("pgd:8/255") == parse("pgd(8/255)") == parse(" pgd ( 8 / 255 ) ")
    assert parse("pgd:8/255").arguments[0].value.value == 8 / 255


def test_nested_expressions_are_arguments():
    tree = parse("worst(rot:30+trans:3|clean, k=10)+pgd:0.3")
    assert [call.name for call in calls(tree)] == ["worst", "rot", "trans", "clean", "pgd"]
    worst = tree.links[0]
    assert isinstance(worst.arguments[0].value, Union)
    assert worst.arguments[1] == Argument(Number(10), "k")


def test_stages_are_pairs():
    call = parse_call("step(0:2/3, 0.62:5/6, 0.74:1)")
    values = [(a.value.left.value, a.value.right.value) for a in call.arguments]
    assert values == [(0, 2 / 3), (0.62, 5 / 6), (0.74, 1)]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "", "empty"),
        ("   ", "", "empty"),
        ("rot++pgd", "character 5", "expected a name"),
        ("+rot", "character 1", "expected a name"),
        ("rot|", "at the end", "expected a name"),
        ("pgd:8/0", "character 5", "division by zero"),
        ("a/", "at the end", "expected a name after 'a/'"),
        ("a/8", "character 3", "expected a name after 'a/'"),
        ("a/-b", "character 3", "expected a name after 'a/'"),
        ("a/b/c", "character 4", "expected '+'"),
        ("pgd:8/a", "character 6", "expected '+'"),
        ("f(8/a)", "character 4", "expected ','"),
        ("f(a/b=1)", "character 6", "expected ','"),
        ("/a", "character 1", "expected a name"),
        ("f('a'/b)", "character 6", "expected ','"),
        ("rot:nan", "character 5", "expected a number"),
        ("rot:inf", "character 5", "expected a number"),
        ("rot:1e999", "character 5", "too large"),
        ("rot:", "at the end", "expected a number"),
        ("rot:30,foo=1", "character 7", "inside parentheses"),
        ("rot(30", "at the end", "character 4 is not closed"),
        ("(rot+pgd", "at the end", "character 1 is not closed"),
        ("rot:30)", "character 7", "never opened"),
        ("rot(30 pgd)", "character 8", "expected ','"),
        ("rot(a=1, a=2)", "character 10", "given twice"),
        ("rot(a=1, 2)", "character 10", "after a keyword"),
        ("rot & pgd", "character 5", "unexpected '&'"),
        ("folder(size=48x64)", "character 15", "; a pair of numbers is written 48:64"),
        ("folder(size=48X64, grey=true)", "character 15", "; a pair of numbers is written 48:64"),
        ("folder(size=48*64)", "character 15", "; a pair of numbers is written 48:64"),
        ("folder(size=48,64)", "character 16", "; a pair of numbers is written 48:64"),
        ("folder(size=(48, 64))", "character 14", "; a pair of numbers is written 48:64"),
        ("folder([48,64])", "character 8", "; a pair of numbers is written 48:64"),
        ("rot pgd", "character 5", "expected '+'"),
        ("__import__", "character 1", "unexpected"),
        ("(" * 60 + "rot", "character 51", "deeper than 50"),
        ("(" * 3000 + "rot" + ")" * 3000, "character 51", "deeper than 50"),
        ("worst(" * 3000 + "rot" + ")" * 3000, "character 306", "deeper than 50"),
        ("rot:1_000", "character 6", "unexpected '_'"),
        ("rot:0x10", "character 6", "expected '+'"),
        ("rot:\uff13\uff10", "character 5", "unexpected '\uff13'"),  # full-width digits
        ("rot:\u06633", "character 5", "unexpected '\u0663'"),  # an Arabic digit
        ("rot:\u221230", "character 5", "unexpected '\u2212'"),  # the minus sign of typesetters
        ("\ud800rot", "character 1", r"unexpected '\ud800'"),
        ("rot\0", "character 4", r"unexpected '\x00'"),
        ("rot:" + "9" * 5000, "character 5", "too large"),
        ("rot:1e-999/0", "character 5", "division by zero"),
        ("a" * 101, "character 1", "a name of 101 characters; at most 100"),
        ("file('a.py)", "character 6", "this quote is not closed"),
        ("file('a\\')", "character 6", "this quote is not closed"),
        ("file(a.py')", "character 7", "unexpected '.'"),
        ('file("it\'s" 3)', "character 13", "expected ',' or ')'"),
        ("'rot'+pgd", "character 1", "without quotes"),
        ("rot'a'", "character 4", "expected '+'"),
        ("rot:'30'", "character 5", "expected a number"),
        ("f('a':1)", "character 6", "expected ','"),
        ("f('a'=1)", "character 6", "expected ','"),
        (r"f('C:\nets')", "character 3", r"write \\ for a backslash in quotes, not \ before 'n'"),
        ("f('two\nlines')", "character 3", r"cannot hold the character '\n'"),
        ("f('\x1b[2J')", "character 3", r"cannot hold the character '\x1b'"),
        ("f('\u2028')", "character 3", r"cannot hold the character '\u2028'"),
        ("f('\udcff')", "character 3", r"cannot hold the character '\udcff'"),
        (f"f('{'a' * 4097}')", "character 3", "a quoted text of 4,097 characters; at most 4,096"),
        ("f(" + "'\"'," * 24_900 + "1)", "", "characters; at most 100,000 are allowed"),  # printed
        ("rot:" + "0" * 100_000, "", "100,004 characters; at most 100,000 are allowed"),
        ("f(" + "1e15," * 19_000 + "1)", "", "characters; at most 100,000 are allowed"),  # printed
        *(
            (f"rot: {space}30", "character 6", f"unexpected {space!r}")
            for space in "\x1c\x1d\x1e\x1f\x85\xa0\u2003\u200b\u2028\ufeff"
        ),
    ],
)
def test_errors_point_at_the_character(text, where, what):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    message = str(caught.value)
    assert where in message
    assert what in message
    assert len(message.splitlines()) == 1
    assert len(message) < 1000


def test_spaces_of_ascii_have_no_meaning():
    assert parse(" \t\n\r\f\vrot(\n8 /\t255 ,\fk = 1 ) ") == parse("rot(8/255,k=1)")


@pytest.mark.parametrize(
    "unit", ["rot:30+", "rot:30|", "f(a,", "(a|b)+", "1:2,", "a=1,", "1 , ", "'a',", "'", "\\'"]
)
def test_parsing_takes_linear_time(unit):
    def seconds(count):
        text = f"f({''.join(f'a{n}=1,' if unit == 'a=1,' else unit for n in range(count))}a)"
        began = time.process_time()
        with contextlib.suppress(ExpressionError):
            parse(text)
        return time.process_time() - began

    whole, part = seconds(14_000), min(seconds(1400) for _ in range(3))
    assert whole < 40 * part + 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1", "expected '+', '|' or the end"),
        ("1)+f(2", "never opened"),
        ("1), f(2", "never opened"),
        ("1,2", "commas are allowed only inside"),
        ("", "expected a single value, not ''"),
        (" ", "expected a single value, not ' '"),
        (",", "expected a single value, not ','"),
        (30, "expected a value as text, such as '8/255', not 30"),
        ("(" * 51, "deeper than 50"),
        ("1" * 100_001, "100,001 characters"),
    ],
)
def test_a_value_is_a_whole_text(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_value(text)


def test_a_value_is_a_number_a_pair_or_an_expression():
    assert parse_value(" -8/255 ") == Number(-8, 255)
    assert parse_value("1:2") == Pair(Number(1), Number(2))
    assert parse_value("rot:30+pgd") == parse("rot:30+pgd")


def test_a_provider_comes_before_the_name():
    call = parse_call(" some-plugin / haze ( 8 / 255 , k = other/veil:1/2 ) ")
    assert (call.name, call.short_name) == ("some-plugin/haze", "haze")
    assert str(call) == "some-plugin/haze(8/255, k=other/veil:1/2)"
    assert parse("rot/pgd") == Call("rot/pgd")
    assert parse_call("rot").short_name == "rot"


def test_a_single_call_is_not_a_combination():
    with pytest.raises(ExpressionError, match="single name"):
        parse_call("rot+pgd")


def test_numbers_keep_how_they_were_written():
    assert str(parse("pgd:8/255")) == "pgd:8/255"
    assert str(Number.of(8 / 255)) == "8/255"
    assert str(Number.of(0.3)) == "0.3"
    assert str(Number.of(2.5 / 3)) == "5/6"
    assert str(Number.of(30)) == "30"
    assert math.isclose(Number(2, 3).value, 2 / 3)
