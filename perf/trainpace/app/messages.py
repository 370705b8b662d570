"""What a session tells its user."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Messages:
    """What a session tells its user."""

    tell: Callable[[str], None] = lambda _: None
    """Says something at once, before the report."""
    said: list[str] = field(default_factory=list)
    """For the report: choices that the suite made by itself, with their reasons."""

    def say(self, text: str) -> None:
        """Say something once in the report."""
        if text not in self.said:
            self.said.append(text)
