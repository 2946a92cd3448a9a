"""Correctors and their training: models, losses, errors, metrics, evaluation, the solver, checkpoints."""
