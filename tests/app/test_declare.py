"""Options that are declared once: pytest's option, its help, its check and its value come of one field."""

from dataclasses import dataclass

import pytest

from trainpace.app.declare import add_options, asked, option, positive, read_options
from trainpace.app.options import GROUPS


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One option, on one line."""

    depth: int = option("--perf-depth", type=positive, default=1, metavar="N", help="How deep to look (default: 1).")


@pytest.fixture
def config(pytester):
    """Makes the config of a session that has this option too."""
    pytester.plugins.append(
        type("Plugin", (), {"pytest_addoption": lambda parser: add_options(parser, GROUPS, Declared)})
    )
    return pytester.parseconfig


def test_a_line_adds_an_option(config):
    """What is declared is parsed, read and has its default."""
    assert read_options(Declared, config()) == {"depth": 1}
    assert read_options(Declared, config("--perf-depth=3")) == {"depth": 3}


def test_a_line_is_its_check(config):
    """Its type refuses what does not fit, in words that name it."""
    with pytest.raises(pytest.UsageError, match="--perf-depth: expected a whole number of at least 1, got '0'"):
        config("--perf-depth=0")


def test_a_line_is_its_help(config):
    """It stands in --help under the heading of its group."""
    told = {each.names()[0]: each.attrs()["help"] for each in config()._parser.getgroup("perf").options}

    assert told["--perf-depth"] == "How deep to look (default: 1)."


def test_asked_is_what_differs_from_the_default():
    """By it the table of exclusions is read."""
    assert asked(Declared, {"depth": 1}) == set()
    assert asked(Declared, {"depth": 2}) == {"--perf-depth"}
