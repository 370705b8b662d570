"""Options that are declared once: a dataclass's field is pytest's option, its help, its check and what is read.

steps: int | None = option("--perf-steps", type=positive, metavar="N", help="Measured steps.")
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest


def option(
    flag: str,
    *,
    help: str,  # noqa: A002 - argparse's and pytest's word
    default: Any = None,
    read: Callable[[Any, pytest.Config], Any] | None = None,
    group: str = "perf",
    repeatable: bool = False,
    ini: tuple[str, str] | None = None,
    again: bool = True,
    **how: Any,
) -> Any:
    """A field of a dataclass of options.

    Args:
        flag: `--perf-name`; the ini option of the same name is `perf_name`.
        help: One sentence with the default, for `--help`.
        default: The field's value where the option is not given. False makes a flag that takes no value.
        read: Makes the field's value of what was typed (of a repeatable option, of the list). A ValueError's text is
            shown behind the flag.
        group: The heading in `--help`, a key of the groups that `add_options` is given.
        repeatable: Whether the values of several are a list; else the last one counts.
        ini: Help and default of an ini option of the same name; None where there is none.
        again: Whether the commands that a report prints carry it; False: it is of one session, as where that writes.
        how: `type`, `choices` and `metavar`, as argparse takes them.
    """
    if default is False:
        how["action"] = "store_true"
    elif repeatable:
        how |= {"action": "append", "default": []}
        read = read or (lambda values, _: tuple(values))
    else:
        how["default"] = default
    metadata = {"flag": flag, "help": help, "default": default, "read": read, "group": group, "ini": ini, "how": how}
    metadata["again"] = again
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def add_options(parser: pytest.Parser, groups: Mapping[str, str], *declared: type) -> None:
    """Tell pytest the options of dataclasses, in the order of their fields, under the headings of `groups`."""
    for each in (each for cls in declared for each in _declared(cls)):
        if each["ini"] is not None:
            words, default = each["ini"]
            parser.addini(_name(each["flag"]), words, default=default)
        group = parser.getgroup(each["group"], groups[each["group"]])
        group.addoption(each["flag"], help=each["help"], **each["how"])


def read_options(declared: type, config: pytest.Config) -> dict[str, Any]:
    """The values of a dataclass's options by the names of its fields, checked one by one.

    Raises:
        pytest.UsageError: naming the option, what it takes and what it got.
    """
    values = {}
    for each in _declared(declared):
        value = config.getoption(_name(each["flag"]))
        if each["read"] is not None:
            try:
                value = each["read"](value, config)
            except ValueError as error:
                raise pytest.UsageError(f"{each['flag']}: {error}") from None
        values[each["field"].name] = value
    return values


def asked(declared: type, values: Mapping[str, Any]) -> set[str]:
    """The flags whose values are not the default, and `--flag value` where there is a choice of values."""
    found = set()
    for each in _declared(declared):
        value = values[each["field"].name]
        if value != each["default"]:
            found.add(each["flag"])
            if "choices" in each["how"]:
                found.add(f"{each['flag']} {value}")
    return found


@dataclass(frozen=True)
class TypedOption:
    """How an option is typed."""

    flag: str
    takes_none: bool
    """Whether it is a flag without a value."""
    repeatable: bool
    again: bool
    """Whether the commands that a report prints carry it."""


def typed_options(*declared: type) -> list[TypedOption]:
    """The options of dataclasses, in the order of their fields."""
    return [
        TypedOption(
            flag=each["flag"],
            takes_none=each["how"].get("action") == "store_true",
            repeatable=each["how"].get("action") == "append",
            again=each["again"],
        )
        for cls in declared
        for each in _declared(cls)
    ]


def number(convert: Callable[[str], Any], fits: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A type for `option`: a number that fits, else the user is told what was expected."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            # argparse words an ArgumentTypeError's text; pytest's parser turns it into a usage error.
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


positive = number(int, lambda value: value >= 1, "a whole number of at least 1")
several = number(int, lambda value: value >= 2, "a whole number of at least 2")
positive_number = number(float, lambda value: 0 < value < float("inf"), "a positive number")
seconds = number(float, lambda value: 0 < value < float("inf"), "a positive number of seconds")
share = number(float, lambda value: 0 < value < 1, "a share between 0 and 1 (0.05 is 5 %)")


def _declared(cls: type) -> list[dict[str, Any]]:
    return [each.metadata | {"field": each} for each in fields(cls) if "flag" in each.metadata]


def _name(flag: str) -> str:
    """Under which pytest keeps a flag: `--perf-max-pairs` -> `perf_max_pairs`."""
    return flag.lstrip("-").replace("-", "_")
