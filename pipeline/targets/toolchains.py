"""What set-up installs for the targets that are switched on; `scripts/setup` reads the lines.

``python -m pipeline.targets.toolchains PARAMS.yaml`` prints ``extra NAME`` for an extra of the
wheel and ``environment NAME`` for a virtual environment of its own; ``--all`` prints every one.
"""

import sys
from pathlib import Path

from pipeline import params
from pipeline.compatibility import CONVERTER_EXTRAS, ENVIRONMENTS
from pipeline.errors import ParamsError
from pipeline.targets.tools import BUILD, CONVERT_TENSORFLOW

FROM_LITERT = ("to_litert", "to_ethos_u")  # converters that lower an ONNX file by TensorFlow


def needed(p: params.Params) -> tuple[set[str], set[str]]:
    """Return the extras and the environments that this project's targets need."""
    extras = {extra for t in p.targets.values() for extra in CONVERTER_EXTRAS[t.converter]}
    if any(settings.qat for settings in p.quantize.values()):
        extras.add("qat")
    environments = {str(target.profile.environment) for target in p.targets.values()} - {BUILD}
    if p.net.onnx and any(t.converter in FROM_LITERT for t in p.targets.values()):
        environments.add(CONVERT_TENSORFLOW)
    return extras, environments


def everything() -> tuple[set[str], set[str]]:
    """Return every extra and environment that some project, or tests/systems/, could need."""
    extras = {extra for extras in CONVERTER_EXTRAS.values() for extra in extras}
    extras |= {"mlperf", "qat", "systems"}
    environments = {name for names in ENVIRONMENTS.values() for name in names} - {BUILD}
    return extras, {CONVERT_TENSORFLOW, *map(str, environments)}


def main(arguments: list[str]) -> None:
    """Print the lines."""
    if arguments == ["--all"]:
        extras, environments = everything()
    else:
        (path,) = arguments
        if not Path(path).is_file():
            raise SystemExit(f"{path} is missing; name a params.yaml")
        try:
            extras, environments = needed(params.load(Path(path)))
        except ParamsError:
            return  # `slipway check`, which comes next, says what is wrong
    lines = [f"extra {name}" for name in sorted(extras)]
    lines += [f"environment {name}" for name in sorted(environments)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
