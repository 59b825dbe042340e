"""From a net to the formats that targets run. Imports nothing: a stage takes the one it needs.

``to_*`` makes a target's files, by `candidates`, which all share; ``from_onnx`` takes the user's.
``onnx_*``, ``litert_*`` and ``tflite_*`` read, change or run files of that format, and ``parity``
compares. ``vela`` and ``tensorrt_engine`` drive the compilers of those names; ``tensorflow_worker``
runs in an environment of its own.
"""
