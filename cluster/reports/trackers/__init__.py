"""Trials in the formats of TensorBoard, MLflow and Weights & Biases."""
