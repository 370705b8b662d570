"""The model of the trainer that `init` writes: it takes no time."""


class Embedding:
    """Nothing to look up."""

    def __init__(self, *sizes):
        self.sizes = sizes


Linear = Embedding


class Sequential(Embedding):
    """Gives its ids back as logits."""

    def to(self, _):
        return self

    def parameters(self):
        return ()

    def __call__(self, ids):
        return Logits(ids)


class Logits:
    """One a token."""

    def __init__(self, ids):
        self.ids = ids

    def flatten(self, *_):
        return self
