"""There is one rank."""


class TCPStore:
    """Where ranks would meet."""

    port = 0

    def __init__(self, *given, **named):
        """Nobody comes."""


def is_initialized():
    """Nobody asks for a process group."""
    return False
