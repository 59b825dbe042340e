"""The exception tree: everything this package raises on purpose.

::

    PipelineError                     one line: what was wrong, with the value; where; what to do
      ParamsError                     params.yaml is wrong: key, value, allowed values
      InputsError                     an input from outside is missing or not as pinned
      DependencyError                 an optional library is absent; names its extra
      ManifestError                   missing, malformed, unsupported version
        DigestMismatchError           bytes differ from the manifest (lists all files)
      NetError                        the user's factory or checkpoint does not give a usable net
      MetricError                     the user's metric fails or gives no finite number
      TrainingError                   training cannot go on: the loss is not finite
      ConversionError                 toolchain refused; carries stage, target, operator
      ParityError                     outputs differ more than the tolerance: both numbers
      DataError                       the user's data: file, row, what is wrong
      RegistryError                   publication or resolution failed
      DeviceError                     the device side: which step, what was kept
      TargetError                     device unreachable or lacks a capability

Our own mistakes are `assert`s and keep their trace; they are never a `PipelineError`.
"""


class PipelineError(Exception):
    """What was wrong with the value, where, and what to do: one line, shown without a trace."""


class ParamsError(PipelineError):
    """params.yaml is wrong."""


class InputsError(PipelineError):
    """An input from outside is missing or differs from its pinned digest."""


class DependencyError(PipelineError):
    """An optional library is absent."""

    def __init__(self, library: str, extra: str) -> None:
        """Name the library and the extra of this distribution that installs it."""
        super().__init__(f"{library} is not installed; pip install 'slipway[{extra}]'")


class ManifestError(PipelineError):
    """A manifest or measurement is missing, malformed or of an unsupported version."""


class DigestMismatchError(ManifestError):
    """Bytes differ from what the manifest says."""


class NetError(PipelineError):
    """A factory or checkpoint does not give a usable net."""


class MetricError(PipelineError):
    """The user's metric fails or gives no finite number."""


class TrainingError(PipelineError):
    """Training cannot go on."""


class ConversionError(PipelineError):
    """A toolchain refused a model."""


class ParityError(PipelineError):
    """Outputs differ more than the tolerance."""


class DataError(PipelineError):
    """The user's data cannot be used."""


class RegistryError(PipelineError):
    """Publication, resolution or verification failed."""


class DeviceError(PipelineError):
    """The device side failed."""


class TargetError(PipelineError):
    """A device is unreachable or lacks a capability."""
