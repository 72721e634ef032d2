"""Chains of causes, as six languages print them."""

from __future__ import annotations

import traceback

from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry import STACK

from engram.learning.stacks import Cause, Frame, causes


def told(chain: tuple[Cause, ...]) -> list[tuple[str | None, str, str, list[str]]]:
    """(how, type, message, functions of the app's own frames) of each."""
    return [
        (one.type, one.message, one.how, [frame.function for frame in one.frames if frame.app])
        for one in chain
    ]


def test_python_chain() -> None:
    """What was raised comes first, the root cause last; messages keep their lines."""

    def inner() -> None:
        try:
            dict[str, int]()["a"]
        except KeyError as error:
            raise ValueError("bad: value\nsecond line") from error

    def outer() -> None:
        try:
            inner()
        except ValueError:
            raise RuntimeError from None

    def outermost() -> None:
        try:
            inner()
        except ValueError:
            outer()

    try:
        outermost()
    except RuntimeError:
        text = traceback.format_exc()
    assert told(causes(text)) == [
        ("RuntimeError", "", "raised", ["outer", "outermost", "test_python_chain"]),
    ], "from None hides the rest"
    try:
        try:
            inner()
        except ValueError:
            raise OSError(2, "gone") from None
    except OSError:
        pass
    try:
        try:
            inner()
        except ValueError:
            1 / 0  # noqa: B018
    except ZeroDivisionError:
        text = traceback.format_exc()
    assert told(causes(text)) == [
        ("ZeroDivisionError", "division by zero", "raised", ["test_python_chain"]),
        ("ValueError", "bad: value\nsecond line", "during handling",
         ["inner", "test_python_chain"]),
        ("KeyError", "'a'", "direct cause", ["inner"]),
    ]  # fmt: skip


def test_python_group() -> None:
    """The exceptions of a group follow it, those without a traceback of their own too."""
    try:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError as error:
            raise ExceptionGroup("several", [ValueError("one"), error]) from None
    except ExceptionGroup:
        text = traceback.format_exc()
    assert told(causes(text)) == [
        ("ExceptionGroup", "several (2 sub-exceptions)", "raised", ["test_python_group"]),
        ("ValueError", "one", "in group", []),
        ("ZeroDivisionError", "division by zero", "in group", ["test_python_group"]),
    ]


def test_python_frames() -> None:
    """Frames run from where it was raised outwards, with file and line."""
    (only,) = causes(STACK)
    assert only.frames == (
        Frame("/app/shop/pay.py", 17, "charge", True),
        Frame("/app/shop/orders.py", 41, "place", True),
    )


def test_java() -> None:
    """`Caused by` goes on, `Suppressed` is said to be that, and libraries are told apart."""
    text = (
        "com.acme.OrderException: outer: x\n"
        "\tat com.acme.Shop.buy(Shop.java:12) ~[shop.jar:1.2]\n"
        "\tat java.base/java.lang.Thread.run(Thread.java:833)\n"
        "\tSuppressed: java.io.IOException: close\n"
        "\t\tat com.acme.Resource.close(Resource.java:3)\n"
        "Caused by: java.lang.IllegalStateException\n"
        "\tat com.acme.Pay.charge(Pay.java:7)\n"
        "\t... 1 more\n"
        "Caused by: java.net.SocketTimeoutException: read timed out\n"
        "\tat java.base/sun.nio.ch.Net.poll(Native Method)\n"
    )
    assert told(causes(text)) == [
        ("com.acme.OrderException", "outer: x", "raised", ["Shop.buy"]),
        ("java.io.IOException", "close", "suppressed", ["Resource.close"]),
        ("java.lang.IllegalStateException", "", "caused by", ["Pay.charge"]),
        ("java.net.SocketTimeoutException", "read timed out", "caused by", []),
    ]


def test_javascript() -> None:
    """Node's `[cause]`, and Firefox, whose stacks hold frames alone."""
    text = (
        "TypeError: outer\n    at buy (/app/shop.js:10:5)\n"
        "    at async /app/node_modules/express/x.js:1:2 {\n  code: 'E1',\n"
        "  [cause]: RangeError: inner\n      at Object.pay (file:///app/pay.mjs:3:4)\n}"
    )
    assert told(causes(text)) == [
        ("TypeError", "outer", "raised", ["buy"]),
        ("RangeError", "inner", "caused by", ["Object.pay"]),
    ]
    firefox = "buy@http://x.test/a.js:10:5\n@http://x.test/a.js:1:1"
    assert told(causes(firefox, type_="TypeError", message="x is undefined")) == [
        ("TypeError", "x is undefined", "raised", ["buy", "<anonymous>"])
    ]


def test_go() -> None:
    """A wrapped Go error is a chain in its message; frames are of the goroutine."""
    text = (
        "goroutine 1 [running]:\nruntime/debug.Stack()\n\t/usr/local/go/src/runtime/debug/x.go:5\n"
        "main.read(0x1)\n\t/app/main.go:12 +0x1d\nmain.main()\n\t/app/main.go:3 +0x1\n"
    )
    chain = causes(text, type_="*fmt.wrapError", message="read config: open x: no such file")
    assert told(chain) == [
        ("*fmt.wrapError", "read config: open x: no such file", "raised",
         ["main.read", "main.main"]),
        (None, "open x: no such file", "wrapped", []),
        (None, "no such file", "wrapped", []),
    ]  # fmt: skip


def test_dotnet() -> None:
    """Frames behind the end of an inner exception are those of the outer one."""
    text = (
        "Acme.OrderException: outer\n ---> System.InvalidOperationException: inner\n"
        "   at Acme.Pay.Charge(String card) in /src/Pay.cs:line 3\n"
        "   --- End of inner exception stack trace ---\n   at Acme.Shop.Buy()\n"
    )
    assert told(causes(text)) == [
        ("Acme.OrderException", "outer", "raised", ["Acme.Shop.Buy"]),
        ("System.InvalidOperationException", "inner", "caused by", ["Acme.Pay.Charge"]),
    ]


def test_rust() -> None:
    """Anyhow's numbered list."""
    text = "Error: outer\n\nCaused by:\n    0: mid\n    1: inner"
    assert told(causes(text)) == [
        ("Error", "outer", "raised", []),
        (None, "mid", "caused by", []),
        (None, "inner", "caused by", []),
    ]


def test_without_a_stack() -> None:
    """What telemetry says without a stack is one cause; nothing is none."""
    assert told(causes(None, type_="E", message="m")) == [("E", "m", "raised", [])]
    assert causes("") == ()


_LINES = st.sampled_from(
    ["Traceback (most recent call last):", '  File "a.py", line 1, in f', "E: x", "", "panic: x: y",
     "The above exception was the direct cause of the following exception:", "Caused by: E: y",
     "\tat a.B.c(B.java:1)", "\t/a.go:1", "main.f()", "  | +-+------- 1 -------", " ---> E",
     "   --- End of inner exception stack trace ---", "  [cause]: ", "\x00", "Caused by:"]
)  # fmt: skip


@given(st.lists(_LINES | st.text(max_size=8), max_size=14))
def test_any_text(lines: list[str]) -> None:
    """Whatever the text, an answer, whose first is what was raised and only the first."""
    chain = causes("\n".join(lines))
    assert [one.how for one in chain[:1]] in ([], ["raised"])
    assert all(one.how != "raised" for one in chain[1:])
