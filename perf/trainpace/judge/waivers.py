"""What keeps a slowdown from failing its session: a quarantine that ends, or a reason that a maintainer accepted.

Neither changes a verdict: an excused regression is still called one, everywhere, with the excuse beside it. The
quarantine lies beside the baselines and is read from the judging side, so that a change cannot excuse itself:

    # baselines/quarantine.toml
    [[case]]
    case = "llama2_7b-8k-sp1"
    reason = "two speeds on this node since the driver update"
    until = 2026-12-31
    who = "jane"
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from trainpace.errors import FileError
from trainpace.judge.verdict import Judgement
from trainpace.records import Record
from trainpace.runs.verdict import Verdict
from trainpace.store.files import check_record, read_toml

FILE = "quarantine.toml"
"""In the folder of the baselines."""
NOISE = {Verdict.REGRESSION, Verdict.INCONCLUSIVE}
"""What noise can look like. A run without a value is no noise, and no quarantine excuses it."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Quarantined(Record):
    """A case known to be noisy, and until when that may be."""

    case: Text
    reason: Text
    until: date
    """The last day on which it counts."""
    who: Text
    """Who answers for it."""

    def __str__(self) -> str:
        return f"{self.case} is quarantined until {self.until} by {self.who}: {self.reason}"


def load_quarantine(folder: Path, today: date) -> list[Quarantined]:
    """The quarantine that lies in `folder`; none where there is no file.

    Raises:
        FileError: for a file, an entry or a field that cannot be used, a case that stands there twice, and an entry
            that has expired: a quarantine that nobody looks at again would hide a regression for ever.
    """
    path = folder / FILE
    if not path.exists():
        return []
    content = read_toml(path)
    entries = content.get("case", [])
    if content.keys() - {"case"} or not isinstance(entries, list):
        raise FileError(f"{path}: expected [[case]] entries and nothing else, got {', '.join(content)}")
    found: dict[str, Quarantined] = {}
    for number, value in enumerate(entries, 1):
        entry = check_record(value, Quarantined, where=f"{path}: entry {number}")
        if entry.case in found:
            raise FileError(f"{path}: {entry.case} stands there twice")
        if entry.until < today:
            raise FileError(
                f"{path}: the quarantine of {entry.case} expired on {entry.until} ({entry.who}: {entry.reason}): take "
                "it out, or give it a later date"
            )
        found[entry.case] = entry
    return list(found.values())


def excuse(judgement: Judgement, quarantine: Iterable[Quarantined], accepted: str | None) -> Judgement:
    """The judgement, with its excuse where it has one.

    `accepted` is the reason why slowdowns are accepted in this session; None: they are not.
    """
    for entry in quarantine:
        if entry.case == judgement.case and judgement.verdict in NOISE:
            return judgement.model_copy(update={"excused": str(entry)})
    if accepted is not None and judgement.verdict is Verdict.REGRESSION:
        return judgement.model_copy(update={"excused": f"accepted: {accepted}"})
    return judgement
