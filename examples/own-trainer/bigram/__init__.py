"""A language model small enough to read in a minute: next-token probabilities from the current token alone."""
