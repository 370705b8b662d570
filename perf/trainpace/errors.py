"""Errors that end a case or the session with a message for the user. Any other exception is a bug.

    SuiteError
      UsageError       exit status 4: options, files, revisions and devices that cannot be used
        FileError  DataError  DeviceBusy  BudgetExceeded  (app.revisions: RevisionError)
      RunFailed        the case is `invalid`
        (launch.host_client: NodeLost)
      Skipped          the case is skipped
      (cost.counter: CannotTrace, cost.worker: CountFailed, app.github_client: GitHubError)

A `ValueError` is of one wrong value, raised by code that does not know where the value came from.
"""

import re

from trainpace.text import harmless

TRAIN = ("datasets", "deepspeed", "huggingface_hub", "pyarrow", "tokenizers", "torch", "transformers")
"""The packages of the extra `train`: what judges has none of them."""


class SuiteError(Exception):
    """Base of every error that the suite raises for its user."""


class UsageError(SuiteError):
    """Something the user gave cannot be used. The message says what was expected and what came."""


class FileError(UsageError):
    """A file that cannot be used. The message names the file, the place in it, what was expected and what came."""


class DataError(UsageError):
    """Training data or a tokenizer that cannot be used. The message says where, what was expected and what came."""


class DeviceBusy(UsageError):
    """Another session holds the device. The message names its process."""


class BudgetExceeded(UsageError):
    """The selected cases take longer than `--perf-max-hours` allows. The message says how long each takes."""


class RunFailed(SuiteError):
    """A run that ended without its steps.

    Args:
        cause: one line. What a rank said may stand in it, and in `detail`: both are made `harmless` here.
        rank: the rank that failed; None where no single rank is known to be the cause.
        detail: that rank's traceback or the end of its log; may be empty.
    """

    def __init__(self, cause: str, *, rank: int | None = None, detail: str = "") -> None:
        self.cause = harmless(cause)
        self.rank = rank
        self.detail = harmless(detail)
        super().__init__(f"rank {rank}: {self.cause}" if rank is not None else self.cause)


class Skipped(SuiteError):
    """A case that cannot be measured here. The message says why, and what to do."""


def what_to_install(text: str) -> str | None:
    """What to say where an error's `text` is of a package of the extra `train` that is missing; None: of another."""
    found = re.search(rf"No module named '({'|'.join(TRAIN)})\b", text)
    return f'{found[1]} is not installed: pip install "trainpace[train]"' if found else None
