"""Datasets, splits, calibration sets."""
