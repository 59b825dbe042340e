"""Olive's part of `benchmarks.against_olive`, run by its own environment's Python.

``python olive_side.py MODEL.onnx CALIBRATION.npz EVALUATION.npz OUT``: for ONNX Runtime and for
OpenVINO convert, quantize statically, and evaluate accuracy and latency of what came in and what
came out. The same measurements for both: Olive's own defaults of 10 warm-up runs and 20 timed ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
import olive
import torch
from olive.data.registry import Registry


class Arrays(torch.utils.data.Dataset):
    """Samples [N, ...] with their labels."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            self.inputs, self.labels = arrays["inputs"], arrays["labels"]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int):
        return self.inputs[index], int(self.labels[index])


class NamedArrays(Arrays):
    """The same with the input's name, which Olive wants for ONNX Runtime."""

    def __getitem__(self, index: int):
        return {"input_1": self.inputs[index]}, int(self.labels[index])


@Registry.register_dataset()
def arrays(path: str, **_options):
    return Arrays(path)


@Registry.register_dataset()
def named_arrays(path: str, **_options):
    return NamedArrays(path)


@Registry.register_post_process()
def best(output, **_options):
    output = output["Identity"] if isinstance(output, dict) else output
    return torch.as_tensor(np.array(output)).argmax(-1)


def data(name: str, path: str, kind: str) -> dict:
    return {
        "name": name,
        "type": "DataContainer",
        "load_dataset_config": {"type": kind, "params": {"path": path}},
        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 1}},
        "post_process_data_config": {"type": "best"},
    }


def workflow(model: dict, passes: dict, calibration: str, evaluation: str, out: Path) -> dict:
    kind = "named_arrays" if "onnxruntime" in out.name else "arrays"
    options = {"task": "multiclass", "num_classes": 10}
    accuracy = {"name": "accuracy_score", "priority": 1, "metric_config": options}
    latency = {"name": "avg", "priority": 2}
    return {
        "input_model": model,
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [
                    {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
                ],
            }
        },
        "data_configs": [
            data("calibration", calibration, kind),
            data("evaluation", evaluation, kind),
        ],
        "evaluators": {
            "both": {
                "metrics": [
                    {"name": "accuracy", "type": "accuracy", "data_config": "evaluation",
                     "sub_types": [accuracy]},
                    {"name": "latency", "type": "latency", "data_config": "evaluation",
                     "sub_types": [latency]},
                ]
            }
        },
        "passes": passes,
        "evaluator": "both",
        "evaluate_input_model": True,
        "host": "local",
        "target": "local",
        "cache_dir": str(out / "cache"),
        "output_dir": str(out / "models"),
        "log_severity_level": 2,
    }  # fmt: skip


def main(model: str, calibration: str, evaluation: str, out: Path) -> None:
    taken = {"type": "ONNXModel", "model_path": model}
    with np.load(calibration) as held:
        num_calibration = len(held["inputs"])
    static = {
        "type": "OnnxStaticQuantization", "data_config": "calibration", "quant_format": "QDQ",
        "per_channel": True, "activation_type": "uint8", "precision": "int8",
        "calibrate_method": "MinMax",
    }  # fmt: skip
    runs = {
        # scales a channel need opset 13; the file has 11
        "onnxruntime": {
            "upgrade": {"type": "OnnxOpVersionConversion", "target_opset": 17},
            "quantize": static,
        },
        "openvino": {
            "convert": {"type": "OpenVINOConversion", "compress_to_fp16": False},
            "quantize": {
                "type": "OpenVINOQuantization", "data_config": "calibration", "preset": "MIXED",
            },
        },
    }  # fmt: skip
    found = {"num_calibration": num_calibration, "olive": olive.__version__}
    for name, passes in runs.items():
        folder = out / name
        folder.mkdir(parents=True)
        done = olive.run(workflow(taken, passes, calibration, evaluation, folder))
        models = done.get_output_models()
        assert models, f"Olive made nothing for {name}"
        found[name] = {
            "input": str(done.get_input_model_metrics()),
            "output": [str(m.metrics_value) for m in models],
            "path": [str(m.model_path) for m in models],
        }
    (out / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
