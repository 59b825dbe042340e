"""Where samples come from: a closed set of sources, named by data.source in params.yaml."""

from pathlib import Path

from pipeline import files, params
from pipeline.data import digits, npz
from pipeline.data.samples import Samples
from pipeline.errors import DataError

__all__ = ["Samples", "read"]


def read(cfg: params.Data) -> Samples:
    """Read all samples of the source, checked.

    Raises:
        InputsError: the file is missing or has other bytes than ``cfg.digest`` pins.
        DataError: what the file holds cannot be used.
    """
    if cfg.source == "digits":
        if cfg.labels:
            raise DataError(
                "data.labels go with data.source npz; digits has its own, leave them out"
            )
        return digits.read()
    assert cfg.path is not None, "params refuses npz without a path"
    path = Path(cfg.path)
    files.check_pin(path, cfg.digest, "data.path", "data.digest")
    return npz.read(path, cfg.labels)
