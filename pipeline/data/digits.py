"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn has (UCI optdigits, test part)."""

import numpy as np

from pipeline.data.samples import Samples
from pipeline.errors import DependencyError


def read() -> Samples:
    """Return float32 [1797, 8, 8] in 0..16 with the labels 0 to 9; nothing is downloaded."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DependencyError("scikit-learn", "build") from error
    digits = load_digits()
    return Samples(
        inputs=digits.images.astype(np.float32),
        labels=digits.target.astype(np.int64),
        label_names=tuple(str(name) for name in digits.target_names),
    )
