"""Adapter ``litert``: a .tflite file on LiteRT's interpreter with XNNPACK."""

from __future__ import annotations

from importlib import metadata

from ai_edge_litert.interpreter import Interpreter

from pipeline.runtimes.interpreter import InterpreterSession


def load(model: str, num_threads: int, batch_size: int = 1) -> InterpreterSession:
    """Load a .tflite file. Raises `RunnerError` when LiteRT refuses it."""
    facts = {"runtime": "litert", "version": metadata.version("ai-edge-litert")}
    return InterpreterSession(Interpreter, model, num_threads, facts, batch_size)
