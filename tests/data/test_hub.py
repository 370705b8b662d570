"""Names on the hub, without a network: what a data set's rows become, and what is said where the hub has none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainpace.data.alpaca import Dialogue, _hub
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
    said: list[tuple[float, str]] = []

    found = list(_hub(name).dialogues(lambda fraction, doing: said.append((fraction, doing))))

    assert found == [
        (1 / 3, Dialogue("[INST] 你好 [/INST]", "好")),
        (1.0, Dialogue("[INST] 加\n一 二 [/INST]", "三")),
    ]
    assert said == [(1.0, f"{name}: left out 1 records with an empty output")]


def test_rows_of_another_form_are_refused(tmp_path: Path) -> None:
    """A data set without Alpaca's columns is refused at its first record."""
    name = hub_set(tmp_path / "set", [{"text": "a"}])

    with pytest.raises(DataError) as caught:
        list(_hub(name).dialogues(lambda _fraction, _doing: None))

    assert str(caught.value).startswith(f"{name}, record 0: key 'instruction': expected text, got no such key")


@pytest.mark.parametrize(
    ("module", "function", "said"),
    [
        ("alpaca", "source", "no-one/nothing: neither a file here nor a data set on the hub: "),
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
