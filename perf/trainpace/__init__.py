"""trainpace: the speed table of an LLM training stack as pytest cases.

Importing this package loads nothing heavy: torch, transformers, datasets and deepspeed are imported
only where a rank runs.
"""

__version__ = "0.1.0"
