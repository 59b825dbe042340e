"""How an Ethos-U artifact is laid out: ``model.tflite`` is for the device, the host runs another.

Vela replaces what it compiles by operators named ``ethos-u``, which only firmware with the NPU can
run. The same graph before Vela lies beside it as ``uncompiled.tflite``: on the host tflite-micro's
reference kernels run that one, with the integer arithmetic that the NPU promises.
"""

COMPILED_OPERATOR = "ethos-u"
UNCOMPILED = "uncompiled.tflite"
# What edgetpu_compiler leaves in a file: it runs on a Coral Edge TPU and nowhere else.
EDGE_TPU_OPERATOR = "edgetpu-custom-op"
