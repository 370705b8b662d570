"""How many tokens a batch has, told by the shapes of what a trainer's `load` returned: no device is waited for.

Inside a rank, loaded by path: imports nothing else of `trainpace`, and neither torch nor numpy.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TOKEN_NAMES = ("input_ids", "tokens", "token_ids", "ids", "inputs")
"""Names of what holds the token ids, most telling first; labels, masks and positions stand beside them."""
_DEPTH = 4


class Size(NamedTuple):
    """Of the token ids of a batch."""

    tokens: int
    sequences: int
    """Rows of the last axis: each may have a token more or less, the one that is to be predicted."""
    axes: int


def size(value: Any, depth: int = _DEPTH) -> Size | None:
    """Token ids in `value`: arrays of integers, of any library, or lists of int. None where there are none.

    Fields of a mapping or an object, and the elements of a tuple, are taken for views of the same tokens (ids, labels,
    positions): the one that is named as token ids counts, else the largest. Elements of a list are taken for parts
    (sequences, micro-batches) and add up, unless each is an array of rows, as torch's DataLoader gives ids and labels.
    """
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return _size_of_array(dtype, shape)
    if depth == 0:
        return None
    if isinstance(value, list):
        return _size_of_list(value, depth - 1)
    return _size_of_fields(_fields(value), depth - 1)


def _size_of_array(dtype: Any, shape: Sequence[int]) -> Size | None:
    kind = getattr(dtype, "kind", None)  # numpy's, whose name takes long to make
    if len(shape) == 0 or not (kind in {"i", "u"} if kind else "int" in str(dtype)):
        return None
    tokens = int(math.prod(shape))
    return Size(tokens, max(1, tokens // max(1, int(shape[-1]))), len(shape))


def _size_of_fields(fields: Mapping[Any, Any], depth: int) -> Size | None:
    for name in TOKEN_NAMES:
        if name in fields and (found := size(fields[name], depth)) is not None:
            return found
    # A mask of queries by keys has more elements than there are tokens.
    unmasked = [each for name, each in fields.items() if "mask" not in str(name)] or fields.values()
    sizes = [found for each in unmasked if (found := size(each, depth)) is not None]
    return max([each for each in sizes if each.axes <= 2] or sizes, default=None)


def _size_of_list(values: list[Any], depth: int) -> Size | None:
    if values and type(values[0]) is int:
        return Size(len(values), 1, 1)
    sizes = [found for each in values if (found := size(each, depth)) is not None]
    if not sizes:
        return None
    if all(each.axes > 1 for each in sizes) and hasattr(values[0], "dtype"):
        return max(sizes)
    return Size(sum(each.tokens for each in sizes), sum(each.sequences for each in sizes), 1)


def _fields(value: Any) -> Mapping[Any, Any]:
    """What an object is made of, by name or place; nothing where it is no container."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple):
        return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if names := getattr(type(value), "__dataclass_fields__", ()):
        return {name: getattr(value, name, None) for name in names}
    return {} if callable(value) else getattr(value, "__dict__", {})


class Tokens:
    """Looks at the batches of the measured steps, and remembers the least and the most tokens."""

    def __init__(self, trainer: Any) -> None:
        said = getattr(trainer, "tokens", None)
        self._say = said if callable(said) else None
        self._seen: dict[str, dict[str, int]] = {}

    def look(self, step: int, batch: Any) -> None:
        """Count the tokens of a step's batch, and take what the trainer says of it.

        Raises:
            TypeError: where the trainer's `tokens(batch)` gives no whole number.
        """
        try:
            found = size(batch)
        except Exception:  # noqa: BLE001 - what odd things a batch is made of is no reason to end a run
            found = None
        if found is not None:
            self._take("counted", step, found.tokens, found.sequences)
        if self._say is not None:
            said = self._say(batch)
            if not isinstance(said, int):
                raise TypeError(f"tokens(batch) must return how many they are, an int, got {said!r:.80} at step {step}")
            self._take("said", step, said, 1)

    def seen(self) -> dict[str, dict[str, int] | None]:
        """As trainpace.runs.run.BatchTokens has it."""
        return {"counted": self._seen.get("counted"), "said": self._seen.get("said")}

    def _take(self, how: str, step: int, tokens: int, sequences: int) -> None:
        seen = self._seen.get(how)
        if seen is None:
            self._seen[how] = {
                "least": tokens,
                "least_step": step,
                "most": tokens,
                "most_step": step,
                "sequences": sequences,
            }
            return
        if tokens < seen["least"]:
            seen.update(least=tokens, least_step=step)
        if tokens > seen["most"]:
            seen.update(most=tokens, most_step=step, sequences=sequences)
