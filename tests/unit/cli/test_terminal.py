"""The terminal of the user: leaving a connection that answers no more, and getting the terminal back."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from mainstay.cli import terminal
from mainstay.cli.inside import _ports


@pytest.mark.parametrize(
    ("typed", "passed", "leaves"),
    [
        ("ls\r", "ls\r", False),
        ("~.", "", True),
        ("ls\r~.more", "ls\r", True),
        ("a~.", "a~.", False),
        ("\r~~", "\r~", False),
        ("~x", "~x", False),
        ("~\r~.", "~\r", True),
        ("\n~", "\n", False),
        ("cd ~/x\r", "cd ~/x\r", False),
    ],
)
def test_leaving_is_typed_at_the_start_of_a_line_and_nowhere_else(typed: str, passed: str, *, leaves: bool):
    whole = terminal.Escapes().typed(typed.encode())
    assert whole == (passed.encode(), leaves)
    one_by_one, said = terminal.Escapes(), b""
    for key in typed:
        part, left = one_by_one.typed(key.encode())
        said += part
        if left:
            break
    assert (said, left) == whole


def test_a_terminal_is_given_back_whatever_happens():
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)

    def fail(error: type[BaseException]) -> None:
        with terminal.raw(theirs):
            assert termios.tcgetattr(theirs) != before
            raise error

    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            fail(error)
        assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("text", "ports"), [("80", (80, 0)), ("0:80", (0, 80)), ("8080:80", (8080, 80)), ("0", (0, 0))]
)
def test_ports_are_local_and_remote(text: str, ports: tuple[int, int]):
    assert _ports(text) == ports


@pytest.mark.parametrize("text", ["", "x", "80:", ":80", "80:0", "65536", "1:2:3", "-1", "٣"])
def test_what_is_no_port_is_refused(text: str):
    import click

    with pytest.raises(click.UsageError):
        _ports(text)
