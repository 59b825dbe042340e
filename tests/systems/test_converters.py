"""The contract of tests/contract/test_converters.py, for routes that need more than the core."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[1] / "contract" / "test_converters.py"
_spec = importlib.util.spec_from_file_location("converter_contract", PATH)
contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract)
globals().update({name: value for name, value in vars(contract).items() if name[0] != "_"})

ROUTES = [contract.Route("to_openvino"), contract.Route("to_litert", from_onnx=True)]
