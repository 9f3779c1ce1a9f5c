"""Real data: the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along."""

import importlib
from typing import NamedTuple

import numpy as np


class Digits(NamedTuple):
    """Images and labels.

    Attributes:
      train_images, test_images: shape (N, 64), from 0 to 1.
      train_labels, test_labels: shape (N,), from 0 to 9.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_digits(seed: int, test_share: float = 0.3) -> Digits:
    """Loads the digits, shuffled and split."""
    # An extra of its own, and slow to import.
    datasets = importlib.import_module("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = images[order] / 16, labels[order]
    num_test = round(test_share * len(labels))
    return Digits(images[num_test:], labels[num_test:], images[:num_test], labels[:num_test])
