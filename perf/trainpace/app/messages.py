"""What a session tells its user."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Messages:
    """What a session tells its user."""

    tell: Callable[[str], None] = lambda _: None
    """Says something at once, before the report."""
    _texts: list[str] = field(default_factory=list)
    _disturbed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Of each kind of fault: what the run was of, and the fault with its figures."""

    @property
    def said(self) -> list[str]:
        """For the report: choices that the suite made by itself, with their reasons."""
        return [*self._texts, *(_of_kind(kind, runs) for kind, runs in self._disturbed.items())]

    def say(self, text: str) -> None:
        """Say something once in the report."""
        if text not in self._texts:
            self._texts.append(text)

    def say_disturbed(self, of: str, fault: str) -> None:
        """Say that a run was made again because of `fault`; of many with faults of one kind in one sentence."""
        self._disturbed.setdefault(fault.partition(":")[0], []).append((of, fault))


def _of_kind(kind: str, runs: Sequence[tuple[str, str]]) -> str:
    if len(runs) == 1:
        return "".join(f"{of}: disturbed: {fault}" for of, fault in runs)
    named = ", ".join(f"{number} of {of}" for of, number in Counter(of for of, _ in runs).items())
    return f"{len(runs)} runs were disturbed, and made again: {kind} ({named})"
