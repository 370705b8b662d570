"""Tokenizers: a byte-level one of our own that needs no download, or any that the `tokenizers` library reads."""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from trainpace.data.cache import content_key, file_hash
from trainpace.errors import DataError, what_to_install

if TYPE_CHECKING:
    import tokenizers

BYTES = "bytes"
"""The name of the default tokenizer."""

Ids = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int64]


class Tokenizer(Protocol):
    """Text to token ids, in batches."""

    name: str
    """As a run's record gives it; of a local one the folder's name and the content's hash, no path."""
    key: str
    """Over the content: two tokenizers with one key give the same ids."""
    bos: int | None
    """Opens a record; None where the tokenizer's own config says that it has none."""
    eos: int
    vocabulary: int
    """Highest id + 1."""

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Positions]:
        """Ids of all texts, one after the other and without special tokens, and the number of ids of each text."""
        ...


class ByteTokenizer:
    """UTF-8 bytes: pad 0, bos 1, eos 2, byte b is 3 + b."""

    name = BYTES
    key = BYTES
    bos: int | None = 1
    eos = 2
    vocabulary = 3 + 256

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Positions]:
        """See `Tokenizer.encode`."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int32)
        ids += 3
        return ids, lengths


class LibraryTokenizer:
    """A `tokenizer.json`, with bos and eos from the `tokenizer_config.json` beside it, else `<s>` and `</s>`."""

    def __init__(self, file: Path, config: Path | None, *, name: str) -> None:
        self._tokenizer = _loaded(file)
        # A file may carry them for inference; here every token of a record counts.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings = _settings(config) if config else {}
        self.bos = self._special("bos_token", settings, default="<s>", optional=True)
        eos = self._special("eos_token", settings, default="</s>", optional=False)
        assert eos is not None
        self.eos = eos
        self.key = content_key(file_hash(file), self.bos, self.eos)
        self.name = f"{name}@{self.key[:8]}"
        self.vocabulary = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Positions]:
        """See `Tokenizer.encode`."""
        encoded = [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum())), lengths

    def _special(self, key: str, settings: dict[str, Any], *, default: str, optional: bool) -> int | None:
        token = settings.get(key, default)
        if token is None and optional:
            return None
        if isinstance(token, dict):
            token = token.get("content")
        id_ = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        if id_ is None:
            came = (
                f"{token!r}, which it does not know" if key in settings else f"no {default!r} in its vocabulary either"
            )
            where = "its tokenizer_config.json names" if key in settings else "no tokenizer_config.json names one, and"
            raise DataError(f"expected {key}; {where} {came}")
        return id_


@lru_cache(maxsize=4)
def tokenizer_named(name: str) -> Tokenizer:
    """The tokenizer called `name`: "bytes", a folder with a tokenizer.json, that file itself, or a name on the hub.

    Raises:
        DataError: where there is none, or it cannot be used.
    """
    if name == BYTES:
        return ByteTokenizer()
    path = Path(name)
    file, config, shown = _local(path) if path.exists() or not is_hub_name(name) else _from_hub(name)
    try:
        return LibraryTokenizer(file, config, name=shown)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def vocabulary_size(name: str) -> int:
    """Highest id + 1 of the tokenizer called `name`; raises as `tokenizer_named` does."""
    return tokenizer_named(name).vocabulary


def is_hub_name(name: str) -> bool:
    """Whether `name` can be one on the hub, `owner/name` or `name`, instead of a path that is not there."""
    parts = name.split("/")
    allowed = all(part and part[0].isalnum() and all(c.isalnum() or c in "-_." for c in part) for part in parts)
    return allowed and len(parts) <= 2 and not name.endswith((".json", ".jsonl", ".parquet"))


def _local(path: Path) -> tuple[Path, Path | None, str]:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"{path}: expected {BYTES!r}, a tokenizer.json, its folder or a name on the hub; no {file} is there"
        )
    config = file.with_name("tokenizer_config.json")
    return file, config if config.is_file() else None, file.resolve().parent.name


def _from_hub(name: str) -> tuple[Path, Path | None, str]:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    except ModuleNotFoundError as error:
        raise DataError(f"{name}: {what_to_install(str(error)) or error}") from None

    try:
        file = Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        raise DataError(f"{name}: neither a file here nor a tokenizer.json on the hub: {first_line(error)}") from None
    try:
        return file, Path(hf_hub_download(name, "tokenizer_config.json")), name
    except EntryNotFoundError:
        return file, None, name


def _loaded(file: Path) -> "tokenizers.Tokenizer":
    try:
        from tokenizers import Tokenizer as Library
    except ModuleNotFoundError as error:
        raise DataError(f"{file}: {what_to_install(str(error)) or error}") from None

    try:
        return Library.from_file(str(file))
    except Exception as error:  # noqa: BLE001  the library raises nothing more specific
        raise DataError(f"expected a tokenizer that the tokenizers library reads, got: {first_line(error)}") from None


def _settings(config: Path) -> dict[str, Any]:
    try:
        settings = json.loads(config.read_bytes())
    except ValueError as error:
        raise DataError(f"{config.name}: not JSON, or cut off: {first_line(error)}") from None
    except RecursionError:
        raise DataError(f"{config.name}: nested too deeply") from None
    if not isinstance(settings, dict):
        raise DataError(f"{config.name}: expected an object, got {type(settings).__name__}")
    return settings


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
