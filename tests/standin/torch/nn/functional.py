"""The loss of the trainer that `init` writes."""


def cross_entropy(logits, ids):
    """Whose backward sleeps."""
    import torch

    return torch.Loss(ids.size)
