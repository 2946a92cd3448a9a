"""The benchmarks behind the README's figures: `make bench`. They print ratios and figures, and assert nothing."""
