"""Adapter ``tflite_runtime``: a .tflite file on tflite-runtime, the interpreter of older boards."""

from __future__ import annotations

from importlib import metadata

from tflite_runtime.interpreter import Interpreter

from pipeline.runtimes.interpreter import InterpreterSession


def load(model: str, num_threads: int, batch_size: int = 1) -> InterpreterSession:
    """Load a .tflite file. Raises `RunnerError` when tflite-runtime refuses it."""
    facts = {"runtime": "tflite_runtime", "version": metadata.version("tflite-runtime")}
    return InterpreterSession(Interpreter, model, num_threads, facts, batch_size)
