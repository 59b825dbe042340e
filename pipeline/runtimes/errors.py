"""What goes wrong on the device side, in the standard library alone: boards have no msgspec."""


class RunnerError(Exception):
    """One line: what was wrong, with the value; where; what to do.

    The host turns it into a `PipelineError`.
    """
