"""What the user typed, for the commands that reports print: the same again, for one test.

Only what was typed is repeated: options of a configuration file or of PYTEST_ADDOPTS stand in the next command anyway.
"""

import argparse
import os
from pathlib import Path

import pytest

from trainpace.app.declare import typed_options
from trainpace.app.option_values import invocation_folder
from trainpace.app.options import Gate, Options
from trainpace.judge.command import Command

AGAINST = "TRAINPACE_AGAINST"
"""Holds the revision that --perf-against was given, in the session that is started from the merge base for it."""
SELECTS = ("-k", "-m")
"""pytest's options that take tests out; a command of one test has no need of them."""
COLLECTS = ("-c", "--rootdir", "--confcutdir", "--import-mode", "-o", "--override-ini", "-p")
"""pytest's options that decide what is collected, and with which configuration."""


def typed(config: pytest.Config) -> Command:
    """The command of the session; `of_test` makes a test's of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for flag in (*SELECTS, *COLLECTS):
        parser.add_argument(flag, action="append", dest=flag)
    ours = typed_options(Options, Gate)
    for each in ours:
        how = "store_true" if each.takes_none else "append"
        parser.add_argument(each.flag, action=how, dest=each.flag)
    found = vars(parser.parse_known_args(list(map(str, config.invocation_params.args)))[0])
    paths = config.args if config.args_source == pytest.Config.ArgsSource.ARGS else []
    options: dict[str, tuple[str, ...]] = {}
    for each in ours:
        if each.again and each.flag in found:
            values = () if each.takes_none else tuple(found[each.flag])
            options[each.flag] = values if each.repeatable else values[-1:]
    if AGAINST in os.environ:
        options.pop("--perf-head", None)
        options["--perf-against"] = (os.environ[AGAINST],)
    return Command(selection=(*paths, *_pairs(SELECTS, found)), pytest=tuple(_pairs(COLLECTS, found)), options=options)


def of_test(session: Command, item: pytest.Item) -> Command:
    """The command of one test of a session."""
    config = item.config
    root, here, path = config.rootpath, config.invocation_params.dir, item.path
    if AGAINST in os.environ:  # the test's file is that of a checkout which will be gone
        root = Path(config.getoption("perf_head"))
        here, path = invocation_folder(config), root / path.relative_to(config.rootpath)
    own: tuple[str, ...] = ()
    if path.is_relative_to(root):
        name = os.path.relpath(path, here)
    else:  # installed: named by its file alone, it would have another root, and other baselines with it
        name = str(path)
        own = tuple(
            word
            for flag, value in (("--rootdir", root), ("-c", config.inipath))
            if value is not None and flag not in session.pytest
            for word in (flag, str(value))
        )
    _, separator, within = item.nodeid.partition("::")
    return Command(
        test=f"{name}{separator}{within}",
        selection=session.selection,
        pytest=(*session.pytest, *own),
        options=session.options,
    )


def _pairs(flags: tuple[str, ...], found: dict[str, list[str]]) -> list[str]:
    return [word for flag in flags for value in found.get(flag, ()) for word in (flag, value)]
