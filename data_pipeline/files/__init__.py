"""Files that appear whole or not at all, and tensors read safely."""
