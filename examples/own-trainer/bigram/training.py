"""Trains the bigram model, without torch: the smallest system that trainpace can measure.

pytest perf --perf-trainer bigram.training:Trainer
"""

from typing import Any

import numpy as np


class Trainer:
    """The four parts that the step loop calls: see docs/own-trainer.md of trainpace."""

    def setup(self, context: Any) -> None:
        """Draw the weights and the text; each rank has its own text."""
        self.vocabulary = context.workload.shape.vocabulary
        self.tokens = context.workload.sequence // context.workload.sp
        self.text = np.random.default_rng(context.rank)
        self.weights = np.random.default_rng(0).normal(0, 0.02, (self.vocabulary, self.vocabulary))
        self.gradient = np.zeros_like(self.weights)

    def load(self, step: int) -> np.ndarray:  # noqa: ARG002 - a trainer's part takes it
        """Random text: token ids [tokens + 1]."""
        return self.text.integers(0, self.vocabulary, self.tokens + 1)

    def forward_backward(self, batch: np.ndarray) -> float:
        """Cross-entropy of each next token, and its gradient."""
        now, following = batch[:-1], batch[1:]
        scores = self.weights[now]
        probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        rows = np.arange(self.tokens)
        loss = -np.log(probabilities[rows, following]).mean()
        probabilities[rows, following] -= 1
        np.add.at(self.gradient, now, probabilities / self.tokens)
        return float(loss)

    def optimizer_step(self) -> None:
        """Plain gradient descent."""
        self.weights -= 0.1 * self.gradient
        self.gradient[:] = 0
