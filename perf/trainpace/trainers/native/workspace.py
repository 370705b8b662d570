"""Memory that a named operator takes while it runs, beside its inputs and outputs: a trace cannot see it."""

from collections.abc import Callable
from typing import Any

WORKSPACES: dict[Any, Callable[..., int]] = {}
"""By operator: a function of the operator's arguments that gives bytes."""


def register_workspace(operator: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register the decorated function as the memory formula of `operator`."""

    def register(formula: Callable[..., int]) -> Callable[..., int]:
        WORKSPACES[operator] = formula
        return formula

    return register
