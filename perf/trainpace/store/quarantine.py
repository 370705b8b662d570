"""The quarantine of noisy cases, a file beside the baselines that people edit:

# baselines/quarantine.toml
[[case]]
case = "llama2_7b-8k-sp1"
reason = "two speeds on this node since the driver update"
until = 2026-12-31
who = "jane"
"""

from datetime import date
from pathlib import Path

from trainpace.errors import FileError
from trainpace.judge.waivers import Quarantined
from trainpace.store.files import check_record, read_toml

FILE = "quarantine.toml"


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
