"""Kinds of records and how each is set in the prompt: Alpaca, conversations (ShareGPT's and OpenAI's form), plain text.

A record that is none of them, or is not whole, is refused by its key: half a file is another
workload.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainpace.errors import DataError

RECORD_BYTES = 16 << 20
"""A record above this is refused: four million tokens, say. Tokenizing takes some twenty times its size of memory."""

ENGLISH = ("instruction", "input", "output")
CHINESE = ("instruction_zh", "input_zh", "output_zh")
"""The keys of the two published sets; a record that has both is read in Chinese, as published."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Who speaks, by the names that OpenAI's form (`role`) and ShareGPT's (`from`) have for it."""
_MISSING = object()


class Turn(NamedTuple):
    """What is asked, which is not judged, and the answer, which is. Of plain text the prompt is empty."""

    prompt: str
    answer: str


Dialogue = tuple[Turn, ...]
"""One record as the model sees it: at least one turn."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of records."""

    name: str
    """As reports give it."""
    told_by: tuple[str, ...]
    """A record that has one of these keys is of this kind."""
    expected: str
    """The keys, for messages."""
    columns: tuple[str, ...]
    """All keys that are read; the others are let be."""
    dialogue: Callable[[dict[str, Any]], Dialogue]
    """Checks a record and sets it in the template. Raises DataError."""

    def fits(self, record: Collection[str]) -> bool:
        """Whether the keys of `record` are those of this kind."""
        return any(key in record for key in self.told_by)


def kind_of(record: object) -> Kind:
    """The kind of a record, told by its keys alone; of a record with keys of several kinds the first of `KINDS`.

    Raises:
        DataError: where it is of none.
    """
    if not isinstance(record, dict):
        raise DataError(f"expected an object with {_kinds()}, got {came(record)}")
    for kind in KINDS:
        if kind.fits(record):
            return kind
    raise unknown(record)


def unknown(keys: Collection[str]) -> DataError:
    """What to raise for a record with `keys`, which are those of no kind."""
    return DataError(f"expected the keys {_kinds()}, got {_listed(keys)}")


def dialogue(record: object, kind: Kind | None = None) -> Dialogue:
    """Check one record and set it in the llama2-chat template, which the published rows use for every model.

    Args:
        record: what a file holds.
        kind: of the file's records so far; None: any.

    Raises:
        DataError: naming the key, what was expected and what came, but not the place, which only a reader knows.
    """
    kind = kind or kind_of(record)
    if not isinstance(record, dict):
        raise DataError(f"expected an object with {kind.expected}, got {came(record)}")
    if not kind.fits(record):
        other = next((each for each in KINDS if each.fits(record)), None)
        if other is None:
            raise DataError(f"expected the keys {kind.expected}, got {_listed(record)}")
        raise DataError(
            f"expected the keys of the kind {kind.name} ({kind.expected}), as before in this file, got one of the "
            f"kind {other.name} ({_listed(record)}): one kind a file"
        )
    made = kind.dialogue(record)
    if sum(len(text) for turn in made for text in turn) > RECORD_BYTES:
        raise too_long()
    return made


def too_long() -> DataError:
    """What to raise for a record above RECORD_BYTES."""
    return DataError(f"expected a record of at most {RECORD_BYTES >> 20} MiB, got a longer one: split it")


def came(value: object) -> str:
    """Type and beginning of a value, for a message."""
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


def _alpaca(record: dict[str, Any]) -> Dialogue:
    keys = CHINESE if CHINESE[0] in record else ENGLISH
    # Columns make a missing input a null.
    instruction, extra, answer = (_text(record, key, may_be_empty=key == keys[1]) for key in keys)
    user = f"{instruction}\n{extra}" if extra else instruction
    return (Turn(_prompt(user), answer),)


def _text_alone(record: dict[str, Any]) -> Dialogue:
    return (Turn("", _text(record, "text")),)


def _messages(record: dict[str, Any]) -> Dialogue:
    """A conversation: at most one system message, which comes first, then user and assistant in turn.

    As in Llama-2's chat the system text stands in the first prompt, and each turn has a bos and an eos.
    """
    name = next(key for key in MESSAGES.told_by if key in record)
    messages = record[name]
    if not isinstance(messages, list):
        raise DataError(f"key {name!r}: expected a list of messages, got {came(messages)}")
    said: list[tuple[str, str]] = []
    for number, message in enumerate(messages, start=1):
        try:
            said.append(_message(message))
        except DataError as error:
            raise DataError(f"key {name!r}, message {number} of {len(messages)}: {error}") from None
    begins = 1 if said and said[0][0] == "system" else 0
    for number, (role, _) in enumerate(said[begins:]):
        if role != (wanted := ("user", "assistant")[number % 2]):
            place = f"message {number + begins + 1} of {len(said)}"
            raise DataError(f"key {name!r}, {place}: expected one of {wanted}, got one of {role}")
    if len(said) == begins or (len(said) - begins) % 2:
        got = f"a last one of {said[-1][0]}" if said else "none"
        raise DataError(f"key {name!r}: expected messages that end with one of assistant, got {got}")
    texts = [text for _, text in said[begins:]]
    if begins and said[0][1]:
        texts[0] = f"<<SYS>>\n{said[0][1]}\n<</SYS>>\n\n{texts[0]}"
    return tuple(Turn(_prompt(user), answer) for user, answer in zip(texts[::2], texts[1::2], strict=True))


def _message(message: object) -> tuple[str, str]:
    """Who speaks, `system`, `user` or `assistant`, and the text."""
    if not isinstance(message, dict):
        raise DataError(f"expected an object with role and content or with from and value, got {came(message)}")
    who, what = ("role", "content") if "role" in message else ("from", "value")
    role = message.get(who, _MISSING)
    if role is _MISSING:
        raise DataError(f"expected the keys role and content or from and value, got {_listed(message)}")
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"key {who!r}: expected {' or '.join(ROLES)}, got {came(role)}")
    return ROLES[role], _text(message, what, may_be_empty=role == "system")


def _prompt(user: str) -> str:
    return f"[INST] {user} [/INST]"


def _text(record: Mapping[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    value = record.get(key, _MISSING)
    if value is _MISSING:
        raise DataError(f"key {key!r}: expected text, got no such key (there are {_listed(record)})")
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        raise DataError(f"key {key!r}: expected text, got {came(value)}")
    if not may_be_empty and (not value or value.isspace()):
        raise DataError(f"key {key!r}: expected text, got {'only spaces' if value else 'an empty one'}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which is no character.
        raise DataError(f"key {key!r}: expected text, got a lone surrogate at character {error.start}") from None
    return value


def _listed(keys: Collection[str]) -> str:
    """At most ten of `keys`, for a message."""
    shown = [came(key).partition(" ")[2] for key in list(keys)[:10]]
    more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
    return (", ".join(shown) or "none") + more


def _kinds() -> str:
    return " or ".join(f"{each.expected} ({each.name})" for each in KINDS)


ALPACA = Kind(
    name="alpaca",
    told_by=("instruction", "instruction_zh"),
    expected=", ".join(ENGLISH),
    columns=(*ENGLISH, *CHINESE),
    dialogue=_alpaca,
)
MESSAGES = Kind(
    name="messages",
    told_by=("messages", "conversations"),
    expected="messages or conversations",
    columns=("messages", "conversations"),
    dialogue=_messages,
)
TEXT = Kind(name="text", told_by=("text",), expected="text", columns=("text",), dialogue=_text_alone)
KINDS = (ALPACA, MESSAGES, TEXT)
"""The published Alpaca set has a `text` besides its own keys: what says more comes first."""
