"""A target with its hardware, and the words for what is wrong between them."""

from dataclasses import dataclass
from pathlib import Path

from pipeline import params
from pipeline.compatibility import Precision
from pipeline.errors import PipelineError
from pipeline.targets import hardware
from pipeline.targets.hardware import Hardware, Sourced


@dataclass(frozen=True)
class Case:
    """A target with its hardware."""

    name: str
    target: params.Target
    hardware: Hardware

    def line(self, key: str, what: str) -> str:
        """Say what is wrong with a key of the target."""
        return f"targets.{self.name}.{key}: {what}"

    def basis(self, key: str, fact: Sourced) -> str:
        """Name a fact and its kind."""
        return f"[{key}, {self.hardware.sources[fact.source].kind}]"

    def taken(self) -> tuple[tuple[Precision, ...], str]:
        """Return the precisions that the converter makes for the hardware, with their basis.

        Of another converter those that the hardware computes; empty where the entry does not say.
        """
        service = self.hardware.converters.get(self.target.converter)
        if service is not None:
            return service.precisions, ""
        fact = self.hardware.numerics.precisions
        return (fact.value, self.basis("numerics.precisions", fact)) if fact else ((), "")


def of(p: params.Params, folder: Path, problems: list[str]) -> list[Case]:
    """Find the hardware of every target that names some; what is wrong with it joins the problems.

    Args:
        p: of a valid file.
        folder: of the project.
        problems: gets a line for each problem.
    """
    found = []
    for name, target in p.targets.items():
        if target.hardware is None:
            continue
        try:
            if hardware.is_file(target.hardware):
                read, lines = hardware.parse(folder / target.hardware)
            else:
                read, lines = hardware.load(target.hardware), []
        except PipelineError as error:
            read, lines = None, [str(error)]
        problems += [f"targets.{name}.hardware: {line}" for line in lines]
        if read is not None and not lines:
            found.append(Case(name, target, read))
    return found
