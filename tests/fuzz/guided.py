"""One reader fuzzed by atheris, which looks at what was reached; started by fuzz.py, since libFuzzer ends its process.

python tests/fuzz/guided.py READER SECONDS FOLDER      # FOLDER holds corpus/ and file/
"""

import sys
from pathlib import Path

import atheris

# Instrumented as they are imported; json and tomllib decide what is reached as much as our own code does.
with atheris.instrument_imports(include=["trainpace", "json", "tomllib"]):
    from readers import READERS, Reader


def fuzz(reader: Reader, seconds: int, folder: Path) -> None:
    """Feed `reader` for so long; does not return. A crash leaves its traceback, and the exit status 77."""
    file = folder / "file"
    reader.prepare(file)
    limits = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=20", "-rss_limit_mb=2048"]
    arguments = [sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder / "corpus")]
    atheris.Setup(arguments, lambda content: reader.feed(file, content))
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(next(each for each in READERS if each.name == sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
