"""Writing files atomically, and reading tensors safely."""
