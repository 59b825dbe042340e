"""Where samples come from: a closed set of sources, named by data.source in params.yaml."""

from pathlib import Path

from pipeline import files, params
from pipeline.data import digits, download, fsdd, image_folder, npz
from pipeline.data.npz import Kind
from pipeline.data.samples import Samples
from pipeline.errors import DataError

__all__ = ["Samples", "read"]


def read(cfg: params.Data, kind: Kind = "classification") -> Samples:
    """Read all samples of the source, checked, with the labels that the kind of task needs.

    Raises:
        InputsError: the file is missing, cannot be fetched, or has other bytes than ``cfg.digest``
            pins.
        DataError: what the file holds cannot be used.
    """
    if cfg.source == "digits":
        if cfg.labels:
            raise DataError(
                "data.labels go with data.source npz; digits has its own, leave them out"
            )
        return digits.read()
    path = _locate(cfg)
    if cfg.source == "npz":
        return npz.read(path, cfg.labels, kind)
    if cfg.source == "fsdd":
        _check_fsdd(cfg, kind)
        return fsdd.read(path)
    _check_images(cfg, kind)
    return image_folder.read(path, cfg, labelled=kind != "agreement")


def _locate(cfg: params.Data) -> Path:
    """Return the path of the pinned bytes, from the cache where params name a URL."""
    if cfg.url is not None:
        return download.fetch(cfg.url, cfg.digest)
    assert cfg.path is not None, "params refuses a source without path and url"
    path = Path(cfg.path)
    folders = cfg.source == "image_folder"
    files.check_pin(path, cfg.digest, "data.path", "data.digest", folders=folders)
    return path


def _check_fsdd(cfg: params.Data, kind: Kind) -> None:
    if kind != "classification":
        raise DataError(f"data.source fsdd is for task.kind classification, got {kind}")
    if cfg.labels:
        raise DataError("data.labels go with data.source npz; fsdd has its own, leave them out")
    if isinstance(cfg.preprocessing, dict):
        raise DataError("data.source fsdd has one input; give data.preprocessing one list")
    for step in cfg.preprocessing:
        if isinstance(step, params.Mfcc) and step.sample_rate_hz != fsdd.SAMPLE_RATE_HZ:
            raise DataError(
                f"data.preprocessing: mfcc has sample_rate_hz {step.sample_rate_hz}, fsdd is "
                f"recorded at {fsdd.SAMPLE_RATE_HZ}; correct it"
            )


def _check_images(cfg: params.Data, kind: Kind) -> None:
    if kind == "regression":
        raise DataError(
            "data.source image_folder has no values to regress; give a .npz with labels [N]"
        )
    if kind == "agreement" and cfg.labels:
        raise DataError(
            f"data.labels name classes {list(cfg.labels)}, task.kind agreement has none; "
            "leave them out"
        )
    if kind == "anomaly" and len(cfg.labels) < 2:
        raise DataError(
            "data.labels must name the folders of task.kind anomaly, that of normal samples first"
        )
