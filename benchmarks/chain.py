"""The chain's time and memory: `python -m benchmarks.chain` writes a page in docs/benchmarks/.

In a fresh clone in a temporary folder: `make run` with set-up, its chain again without, peak memory
of the whole process tree (sum of proportional set sizes, sampled), `dvc repro` with nothing changed
against the same dvc.yaml with stub commands (interleaved), and imports against bare Python.
"""

import datetime as dt
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
NUM_PAIRS = 7
SAMPLE_S = 0.1
TOOLS = ("torch", "onnxruntime", "ai-edge-litert", "litert-torch", "dvc", "numpy")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "slipway"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        first_s, peak_bytes = timed_tree(["make", "run"], clone)
        chain_s, chain_peak_bytes = timed_tree(venv("dvc", "repro", "--force", "--quiet"), clone)
        nothing_s, stub_s = nothing_changed(clone)
        rows = [
            ("first `make run`, set-up included", f"{first_s:.0f} s", "720 s"),
            ("the chain alone (`dvc repro --force`)", f"{chain_s:.0f} s", "300 s"),
            ("peak memory of `make run`", f"{peak_bytes / 1e9:.2f} GB", "4 GB"),
            ("peak memory of the chain", f"{chain_peak_bytes / 1e9:.2f} GB", "4 GB"),
            ("`dvc repro`, nothing changed", f"{nothing_s:.2f} s", ""),
            ("the same with stub commands", f"{stub_s:.2f} s", ""),
            ("ratio of the two", f"{nothing_s / stub_s:.2f}", "1.5"),
            *imports(clone),
        ]
    write(rows)


def venv(*command: str) -> list[str]:
    return [f".venv/bin/{command[0]}", *command[1:]]


def environment(clone: Path) -> dict[str, str]:
    return os.environ | {"PATH": f"{clone / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}


def timed_tree(command: list[str], clone: Path) -> tuple[float, int]:
    """Run it; give seconds, and the largest sum of the tree's proportional set sizes in bytes."""
    started = time.monotonic()
    with (clone / "bench.log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=clone, env=environment(clone), stdout=log, stderr=log
        )
    peaks = [0]
    watcher = threading.Thread(target=watch, args=(process, peaks))
    watcher.start()
    returned = process.wait()
    seconds = time.monotonic() - started
    watcher.join()
    if returned:
        sys.exit(f"{' '.join(command)} failed:\n{(clone / 'bench.log').read_text()[-2000:]}")
    return seconds, peaks[0]


def watch(process: "subprocess.Popen[bytes]", peaks: list[int]) -> None:
    while process.poll() is None:
        peaks[0] = max(peaks[0], tree_bytes(process.pid))
        time.sleep(SAMPLE_S)


def tree_bytes(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in tree:
        with suppress(psutil.Error):  # it ended while we looked
            total += process.memory_full_info().pss
    return total


def nothing_changed(clone: Path) -> tuple[float, float]:
    """Interleave the real project with a copy whose commands do nothing; medians in seconds."""
    stub = clone.parent / "stub"
    shutil.copytree(clone, stub, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".venvs"))
    shutil.copytree(stub / "models/toolchain", stub / "kept")
    text = (stub / "dvc.yaml").read_text()
    text = re.sub(
        r"cmd: exec python -m stages\.toolchain", "cmd: exec cp -r kept models/toolchain", text
    )
    (stub / "dvc.yaml").write_text(re.sub(r"cmd: exec python .*", "cmd: exec true", text))
    dvc = str(clone / ".venv/bin/dvc")
    subprocess.run([dvc, "commit", "--force", "--quiet"], cwd=stub, check=True)
    times: dict[Path, list[float]] = {clone: [], stub: []}
    for index in range(NUM_PAIRS):
        for project in (clone, stub) if index % 2 else (stub, clone):
            started = time.monotonic()
            done = subprocess.run(
                [dvc, "repro"], cwd=project, env=environment(clone), check=True,
                capture_output=True, text=True,
            )  # fmt: skip
            times[project].append(time.monotonic() - started)
            assert re.findall(r"Running stage '(.*)'", done.stdout) == ["toolchain"], done.stdout
    return statistics.median(times[clone]), statistics.median(times[stub])


def imports(clone: Path) -> list[tuple[str, str, str]]:
    python = str(clone / ".venv/bin/python")
    bare = median_ms([python, "-c", "pass"], clone)
    light = median_ms([python, "-c", "import pipeline.manifest"], clone)
    command = median_ms(venv("slipway", "--help"), clone)
    return [
        ("bare Python start", f"{bare:.0f} ms", ""),
        ("`import pipeline.manifest`, beyond bare Python", f"{light - bare:.0f} ms", "60 ms"),
        ("`slipway --help`, start included", f"{command:.0f} ms", "300 ms"),
    ]


def median_ms(command: list[str], clone: Path) -> float:
    times = []
    for _ in range(15):
        started = time.perf_counter()
        subprocess.run(command, cwd=clone, check=True, capture_output=True)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def write(rows: list[tuple[str, str, str]]) -> None:
    date = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    tools = ", ".join(f"{tool} {version(tool)}" for tool in TOOLS)
    lines = [
        f"# The chain: {cpu}, {os.cpu_count()} cores, {date}",
        "",
        f"Commit {commit}; Python {sys.version.split()[0]}; {tools}.",
        "To repeat: `make bench`. Default params.yaml, three targets; the first row includes",
        "downloads of packages. Machines are shared: times are of this run, ratios interleaved.",
        "",
        "| what | measured | limit |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        (__doc__ or "").partition("\n\n")[2].strip(),
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    path = ROOT / f"docs/benchmarks/chain_{slug}_{date}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
