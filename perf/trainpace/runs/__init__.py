"""Records of what was measured, and the numbers that follow from them. Pure."""
