"""Benchmarks behind the README's figures: `make bench`. Each prints a ratio, or a figure and its bound; none asserts."""
