"""What every test shares: where data is, and that a skip in CI is a failure unless it is listed."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_SKIPS = ROOT / "tests" / "allowed_skips.txt"


@pytest.fixture(scope="session")
def data_path() -> Path:
    path = Path(os.environ.get("SLIPWAY_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"SLIPWAY_DATA: {path.name} is absent")
    return path


def allowed_skips() -> list[str]:
    lines = ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001 - the hook's signature
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in allowed_skips()):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, and not in tests/allowed_skips.txt: {reason}"
