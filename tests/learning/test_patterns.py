"""Log patterns: what is a value, what is a choice, and the same result in any order."""

from __future__ import annotations

import io
import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.patterns import mine, pattern_id


def templates(*messages: str) -> list[str]:
    """The template of each message."""
    found = mine(messages)
    return [found.templates[at] for at in found.of]


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("disk 3 is full", "disk <*> is full"),
        ("took 1.5 ms, sent 3 KB", "took <*>, sent <*>"),
        ("GET http://x.org/a?b=1 failed", "GET <*> failed"),
        ("mail to ann.b@mail.example.org", "mail to <*>"),
        ("id 6ba7b810-9dad-11d1-80b4-00c04fd430c8!", "id <*>"),
        ("peer 10.0.0.1:443 (fe:dc:ba:98:76:54)", "peer <*> (<*>)"),
        ("read /var/log/app.log: 0x1f", "read <*>"),
        ("opened C:\\Temp\\a.txt", "opened <*>"),
        ("commit deadbeef01", "commit <*>"),
        ("the facade is a decade old", "the facade is a decade old"),
        ("GET /api failed", "GET /api failed"),
        ("rhost=() user=[]", "rhost=(<*>) user=[<*>]"),
        ("sizes 1, 2, 3", "sizes <*>"),
        ("worker-17 died", "<*> died"),
        ("", ""),
        ("a \x00 mark", "a   mark"),
    ],
)
def test_what_is_a_value(message: str, template: str) -> None:
    """One message alone: only what looks like a value is one."""
    assert templates(message) == [template]


def test_columns_with_many_words_are_values() -> None:
    """And columns with few are what the programmer wrote."""
    names = ["ann", "bob", "cy", "dora", "eve"]
    found = templates(*(f"login of {name} refused by policy" for name in names))
    assert set(found) == {"login of <*> refused by policy"}
    found = templates("login of ann refused by policy", "login of bob refused by policy")
    assert len(set(found)) == 2
    names = ["app.web.A", "app.web.B"]
    assert set(templates(*(f"class {name} was loaded" for name in names))) == {
        "class <*> was loaded"
    }


def test_states_and_subjects_are_choices() -> None:
    """Words in capitals and the first word are rarely values."""
    states = ["NEW", "READY", "RUNNING", "DONE", "FAILED"]
    assert len(set(templates(*(f"job is {state} now, go on" for state in states)))) == 5
    services = ["cron", "syslog", "sshd", "ntpd", "cups"]
    assert len(set(templates(*(f"{name} startup succeeded" for name in services)))) == 5


def test_lists_of_any_length_are_one_pattern() -> None:
    """Items that repeat are folded."""
    found = templates("nodes 1 ok 2 ok 3 ok", "nodes 1 ok 2 ok", "nodes 1 ok 2 ok 3 ok 4 ok")
    assert len(set(found)) == 1


def test_a_shaped_value_is_of_the_pattern_with_the_bare_one() -> None:
    """`LOCAL(0)` is a value where other messages have one, and does not absorb everything."""
    assert set(templates("clock set to LOCAL(0) again", "clock set to 10.1.2.3 again")) == {
        "clock set to <*> again"
    }
    assert set(templates("done=1", "17")) == {"done=<*>", "<*>"}


messages = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.builds(
            "{} of {} is {}".format,
            st.sampled_from(["disk", "job", "user"]),
            st.sampled_from(["a", "b", "c", "d", "e", "x.y"]),
            st.integers(0, 99),
        ),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(messages, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(said: list[str], dice: random.Random) -> None:
    """The same messages in another order, some of them again: the same patterns."""
    said = [one.encode("utf-8", "replace").decode() for one in said]
    before = dict(zip(said, templates(*said), strict=True))
    again = said + dice.choices(said, k=5) if said else []
    dice.shuffle(again)
    for message, template in zip(again, templates(*again), strict=True):
        assert before[message] == template


def test_no_text_and_long_text() -> None:
    """Null is the empty pattern; a message of a megabyte is one pattern like any other."""
    found = mine(pl.Series([None, "", "a b"], dtype=pl.String))
    assert [found.templates[at] for at in found.of] == ["", "", "a b"]
    assert len(templates("word " * 200_000)) == 1


def test_the_filter_keeps_the_order_and_survives_garbage() -> None:
    """`engram lab patterns`: a line for a line."""
    out = io.BytesIO()
    lab.run("patterns", io.BytesIO(b"disk 1 full\n\xff\xfe\n\ndisk 2 full\r\n"), out)
    told = out.getvalue().decode().splitlines()
    assert [line.split("\t")[1] for line in told] == [
        "disk <*> full",
        "\ufffd\ufffd",
        "",
        "disk <*> full",
    ]
    assert told[0] == told[3]
    assert told[0].split("\t")[0] == pattern_id("disk <*> full")
    with pytest.raises(BadRequest, match=r"there is: .*patterns"):
        lab.run("tea", io.BytesIO(), out)
