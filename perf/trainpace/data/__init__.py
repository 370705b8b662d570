"""Data: records -> token ids -> packed sequences, cached by content and shared by the ranks.

    data = packed(sources=(), tokenizer="bytes", sequence=8192, count=64, seed=0, cache=Path("cache"))
    data.ids[0], data.labels[0], data.document_starts(0)

The names load on first use, so that asking for a vocabulary's size does not import Arrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainpace.data.base import Progress
    from trainpace.data.packing import Packed, opened, packed
    from trainpace.data.tokenizer import BYTES, vocabulary_size

__all__ = ["BYTES", "Packed", "Progress", "opened", "packed", "vocabulary_size"]

_HOME = {
    "BYTES": "tokenizer",
    "Packed": "packing",
    "Progress": "base",
    "opened": "packing",
    "packed": "packing",
    "vocabulary_size": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
