"""Small models of each kind, and the poses that their tests correct."""

import math

import numpy as np
import torch

from tests.support import hands

CODERS = ["shared", "per_joint", "whole_pose"]

GNN = {
    **{"n_iter": 2, "latent_dim": 6, "message_dims": [8]},
    **{"encoder": "shared", "encoder_dims": [5], "decoder": "shared", "decoder_dims": [5]},
}

LCN = {"dim": 4, "n_blocks": 2, "reach": 1}

TRANSFORMER = {"dim": 8, "n_layers": 2, "n_heads": 2, "feedforward_dim": 16}

KERNEL = {"bandwidth": 2.0, "ridge": 0.1}

FILTER = {"size": 5, "hidden_dims": [6], "zero_init": False}

TEMPORAL_LCN = {"size": 5, "n_filters": 2, "hidden_dims": [6], "dim": 4, "n_blocks": 1, "reach": 1, "zero_init": False}

AGREEMENT = {"n_subsets": 3, "hidden_dims": [6], "zero_init": False}

NUMPY_ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "LeakyReLU(negative_slope=0.1)": lambda x: np.where(x > 0, x, 0.1 * x),
}


def seeded(make, seed=0):
    """Returns the result of `make` with a seeded global generator of torch, whose state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def normalized_hands(skeleton, n, seed=0):
    """Returns poses and labels of n hands about their centres, (N, J, 3) each, with coordinates of about 1."""
    poses, labels = hands(skeleton, n, seed)
    centres = poses.mean(dim=1, keepdim=True)
    return (poses - centres) / 50, (labels - centres) / 50


def fit(model, poses, labels, batch_size=7):
    """Fits a model in closed form, with one epoch in which the samples have this order."""
    for batch in zip(poses.split(batch_size), labels.split(batch_size), strict=True):
        model.add(*batch)
    model.fit()


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def graph_distances(skeleton):
    """Returns the number of edges between any two joints in the message graph, (J, J), by Floyd and Warshall."""
    distances = np.full((skeleton.n_joints, skeleton.n_joints), np.inf)
    np.fill_diagonal(distances, 0)
    for a, b in skeleton.message_edges:
        distances[a, b] = distances[b, a] = 1
    for k in range(skeleton.n_joints):
        distances = np.minimum(distances, distances[:, k, None] + distances[None, k])
    return distances
