"""Kinds of records: how each is set in the prompt, and what is refused with its key."""

from typing import Any

import pytest

from trainpace.data.kinds import ALPACA, MESSAGES, TEXT, Turn, dialogue, kind_of
from trainpace.errors import DataError

ASKED = {"role": "user", "content": "Hi"}
ANSWERED = {"role": "assistant", "content": "Ho"}


def refusal(record: object) -> str:
    with pytest.raises(DataError) as caught:
        dialogue(record)
    return str(caught.value)


def test_prompt_is_the_llama2_chat_template() -> None:
    """An input stands on a line of its own below the instruction."""
    made = dialogue({"instruction": "Add.", "input": "1 2", "output": "3"})

    assert made == (Turn("[INST] Add.\n1 2 [/INST]", "3"),)


@pytest.mark.parametrize("extra", ["", None])
def test_empty_input_adds_no_line(extra: str | None) -> None:
    """Most records have no input, and their prompt is the instruction alone; columns make a missing one a null."""
    made = dialogue({"instruction": "Hi", "input": extra, "output": "Ho"})

    assert made == (Turn("[INST] Hi [/INST]", "Ho"),)


def test_chinese_keys_come_before_english_ones() -> None:
    """A record with both sets of keys is read in Chinese, and further keys are let be."""
    record = {"instruction": "Hi", "input": "", "output": "Ho", "id": 7}
    chinese = {"instruction_zh": "你好", "input_zh": "", "output_zh": "好"}

    assert dialogue(record | chinese) == (Turn("[INST] 你好 [/INST]", "好"),)


def test_a_conversation_of_one_turn_is_an_alpaca_record() -> None:
    """Who asks and answers once is trained on alike, whatever the form."""
    alpaca = dialogue({"instruction": "Hi", "input": "", "output": "Ho"})
    sharegpt = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]

    assert alpaca == dialogue({"messages": [ASKED, ANSWERED]}) == dialogue({"conversations": sharegpt})


@pytest.mark.parametrize(
    ("system", "opening"), [("Be brief.", "<<SYS>>\nBe brief.\n<</SYS>>\n\n"), ("", ""), (None, "")]
)
def test_the_system_text_stands_in_the_first_prompt(system: str | None, opening: str) -> None:
    """As Llama-2's chat has it; each answer is a turn of its own."""
    messages = [{"role": "system", "content": system}, ASKED, ANSWERED, ASKED, ANSWERED]

    assert dialogue({"messages": messages}) == (
        Turn(f"[INST] {opening}Hi [/INST]", "Ho"),
        Turn("[INST] Hi [/INST]", "Ho"),
    )


def test_plain_text_is_all_judged() -> None:
    """Text has no prompt."""
    assert dialogue({"text": "Once."}) == (Turn("", "Once."),)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"instruction": 1, "text": 2}, ALPACA),
        ({"instruction_zh": 1}, ALPACA),
        ({"conversations": 1, "text": 2}, MESSAGES),
        ({"messages": 1}, MESSAGES),
        ({"text": 1, "output": 2}, TEXT),
    ],
)
def test_kind_is_told_by_the_keys(record: dict[str, Any], kind: object) -> None:
    """The published Alpaca set has a text besides its own keys: what says more comes first."""
    assert kind_of(record) is kind


KEYS = "instruction, input, output (alpaca) or messages or conversations (messages) or text (text)"
BAD_RECORDS = [
    (
        {"instruction": "a", "output": "b"},
        "key 'input': expected text, got no such key (there are 'instruction', 'output')",
    ),
    ({}, f"expected the keys {KEYS}, got none"),
    ({"prompt": "a", "b": 1}, f"expected the keys {KEYS}, got 'prompt', 'b'"),
    (
        dict.fromkeys(map(str, range(12))),
        f"expected the keys {KEYS}, got {', '.join(repr(str(n)) for n in range(10))} and 2 more",
    ),
    (
        {"instruction_zh": "a", "input_zh": ""},
        "key 'output_zh': expected text, got no such key (there are 'instruction_zh', 'input_zh')",
    ),
    ({"instruction": 3, "input": "", "output": "b"}, "key 'instruction': expected text, got int 3"),
    ({"instruction": None, "input": "", "output": "b"}, "key 'instruction': expected text, got NoneType None"),
    ({"instruction": "a", "input": "", "output": ["b"]}, "key 'output': expected text, got list ['b']"),
    ({"instruction": "", "input": "", "output": "b"}, "key 'instruction': expected text, got an empty one"),
    ({"instruction": "a", "input": "", "output": ""}, "key 'output': expected text, got an empty one"),
    ({"instruction": "a", "input": "", "output": " \n"}, "key 'output': expected text, got only spaces"),
    (
        {"instruction": "a", "input": "", "output": "b\ud800"},
        "key 'output': expected text, got a lone surrogate at character 1",
    ),
    (["a"], f"expected an object with {KEYS}, got list ['a']"),
    ("a" * 50, f"expected an object with {KEYS}, got str '{'a' * 36}..."),
    ({"text": None}, "key 'text': expected text, got NoneType None"),
    ({"text": ""}, "key 'text': expected text, got an empty one"),
    ({"text": "x" * (17 << 20)}, "expected a record of at most 16 MiB, got a longer one: split it"),
    ({"messages": "a"}, "key 'messages': expected a list of messages, got str 'a'"),
    ({"messages": []}, "key 'messages': expected messages that end with one of assistant, got none"),
    (
        {"messages": [{"role": "system", "content": "a"}]},
        "key 'messages': expected messages that end with one of assistant, got a last one of system",
    ),
    (
        {"messages": [ASKED, ANSWERED, ASKED]},
        "key 'messages': expected messages that end with one of assistant, got a last one of user",
    ),
    (
        {"conversations": [ASKED, ANSWERED, ANSWERED]},
        "key 'conversations', message 3 of 3: expected one of user, got one of assistant",
    ),
    (
        {"messages": [ASKED, ANSWERED, {"role": "system", "content": "a"}]},
        "key 'messages', message 3 of 3: expected one of user, got one of system",
    ),
    (
        {"messages": [ASKED, {"role": "tool", "content": "a"}]},
        "key 'messages', message 2 of 2: key 'role': expected system or user or human or assistant or gpt, "
        "got str 'tool'",
    ),
    (
        {"messages": [ASKED, {"role": ["user"], "content": "a"}]},
        "key 'messages', message 2 of 2: key 'role': expected system or user or human or assistant or gpt, "
        "got list ['user']",
    ),
    (
        {"messages": [{"from": "human", "content": "a"}]},
        "key 'messages', message 1 of 1: key 'value': expected text, got no such key (there are 'from', 'content')",
    ),
    (
        {"messages": [ASKED, {"role": "assistant", "content": None}]},
        "key 'messages', message 2 of 2: key 'content': expected text, got NoneType None",
    ),
    (
        {"messages": [{"speaker": "a"}]},
        "key 'messages', message 1 of 1: expected the keys role and content or from and value, got 'speaker'",
    ),
    (
        {"messages": [3]},
        "key 'messages', message 1 of 1: expected an object with role and content or with from and value, got int 3",
    ),
]


@pytest.mark.parametrize(("record", "said"), BAD_RECORDS, ids=[said[:60] for _, said in BAD_RECORDS])
def test_bad_record_is_named_with_its_key(record: object, said: str) -> None:
    """What cannot be used is refused with the key, what was expected and what came."""
    assert refusal(record) == said


def test_another_kind_is_refused() -> None:
    """A file is of one kind; a record that has the keys of several is of the file's."""
    with pytest.raises(DataError) as caught:
        dialogue({"text": "a"}, MESSAGES)
    with pytest.raises(DataError) as neither:
        dialogue({"a": "a"}, MESSAGES)

    assert str(caught.value) == (
        "expected the keys of the kind messages (messages or conversations), as before in this file, got one of the "
        "kind text ('text'): one kind a file"
    )
    assert str(neither.value) == "expected the keys messages or conversations, got 'a'"
    assert dialogue({"text": "a", "instruction": 1}, TEXT) == (Turn("", "a"),)
