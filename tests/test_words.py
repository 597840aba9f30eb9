"""Words of others: what may be a name, and how they are shown."""

from __future__ import annotations

import csv
import io
from xml.etree import ElementTree

import pytest

from detrbench.check import outputs
from detrbench.cli import output
from detrbench.report import formats
from detrbench.words import LONGEST_NAME, printable, problem_of_name

STEERING = "a\x1b[31mred\x07\r\n::error::forged\u202eback\x9b\u2028"


def test_nothing_steers_a_terminal_or_breaks_a_line() -> None:
    assert printable(STEERING) == r"a\x1b[31mred\x07\r\n::error::forged\u202eback\x9b\u2028"
    assert printable("blå 猫 – 0.5 %") == "blå 猫 – 0.5 %"


@pytest.mark.parametrize("name", ["sparse-0.1", "H2L2-(6+1)x1", "DINO, 4 scales", "x" * LONGEST_NAME, "..a"])
def test_a_name(name: str) -> None:
    assert problem_of_name(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "got none"),
        ("  ", "got none"),
        ("..", "no path"),
        ("../../escaped", "no path"),
        ("/tmp/x", "no path"),
        ("a\\b", "no path"),
        ("a\nb", r"a\nb"),
        ("\x1b[0m", "no control characters"),
        ("x" * (LONGEST_NAME + 1), "at most 120 characters, got 121"),
    ],
)
def test_no_name(name: str, said: str) -> None:
    assert said in str(problem_of_name(name))


def test_lines_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(STEERING, "second")
    output.note(STEERING)
    out, err = capsys.readouterr()
    assert out == printable(STEERING) + "\nsecond\n"
    assert err == printable(STEERING) + "\n"
    output.console().print(output.table(["name"], [[STEERING]]))
    assert "\x1b" not in capsys.readouterr().out


def test_text_formats() -> None:
    assert "\x1b" not in formats.as_markdown(STEERING) + formats.as_tex(STEERING)
    assert "\n" not in formats.as_markdown(STEERING) + formats.as_tex(STEERING)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_spreadsheet_takes_text_for_a_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([formats.plain(text)])
    (cell,) = next(csv.reader(io.StringIO(out.getvalue())))
    assert cell[0] in "'\\"


@pytest.mark.parametrize("value", ["-0.5", "+3", "1e-4", -0.5])
def test_numbers_stay_numbers(value: object) -> None:
    assert float(formats.plain(value)) == float(str(value))


def test_junit_is_xml_whatever_stands_in_it() -> None:
    element = ElementTree.Element("a", name=outputs._xml("x\b\x00\ufffe\ud800" + STEERING))
    again = ElementTree.fromstring(ElementTree.tostring(element, encoding="unicode"))
    assert again.get("name", "").startswith(r"x\x08\x00??a\x1b[31mred")
