"""Names on the hub, without a network: what a data set's rows become, and what is said where the hub has none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainpace.data.kinds import Turn
from trainpace.data.sources import Seen, _hub
from trainpace.errors import DataError

ASK = """
from trainpace.errors import DataError
from trainpace.data.{module} import {function}
try:
    {function}({name!r})
except DataError as error:
    print(error)
"""


def hub_set(folder: Path, records: list[dict[str, object]]) -> str:
    """A data set in a folder, which the datasets library loads as it does one from the hub."""
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return str(folder)


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "hub")


def test_rows_are_read_as_records(tmp_path: Path) -> None:
    """Rows become dialogues, a null input none; one that has no output is left out and counted."""
    name = hub_set(
        tmp_path / "set",
        [
            {"instruction_zh": "你好", "input_zh": None, "output_zh": "好"},
            {"instruction_zh": "再见", "input_zh": "", "output_zh": ""},
            {"instruction_zh": "加", "input_zh": "一 二", "output_zh": "三"},
        ],
    )
    made, seen = _hub(name), Seen()

    found = list(made.dialogues(seen))

    assert found == [
        (1 / 3, (Turn("[INST] 你好 [/INST]", "好"),)),
        (1.0, (Turn("[INST] 加\n一 二 [/INST]", "三"),)),
    ]
    assert (seen.kind, seen.records, seen.skipped) == ("alpaca", 2, 1)
    assert seen.reasons == ["record 2: key 'output_zh': expected text, got an empty one"]
    assert made.name_of(seen) == made.name


def test_rows_of_another_form_are_refused(tmp_path: Path) -> None:
    """A data set without the columns of any kind is refused at its first record."""
    name = hub_set(tmp_path / "set", [{"prompt": "a"}])

    with pytest.raises(DataError) as caught:
        list(_hub(name).dialogues(Seen()))

    assert str(caught.value).startswith(f"{name}, record 1: expected the keys instruction, ")


@pytest.mark.parametrize(
    ("module", "function", "said"),
    [
        ("sources", "source", "no-one/nothing: neither a file here nor a data set on the hub: "),
        ("tokenizer", "tokenizer_named", "no-one/nothing: neither a file here nor a tokenizer.json on the hub: "),
    ],
)
def test_hub_out_of_reach(tmp_path: Path, module: str, function: str, said: str) -> None:
    """Without a network a name that is not in the hub's cache is refused, with the library's reason."""
    result = subprocess.run(
        [sys.executable, "-c", ASK.format(module=module, function=function, name="no-one/nothing")],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.startswith(said)
    assert len(result.stdout.strip()) > len(said)
