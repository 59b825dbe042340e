"""Publishers that are killed or run at once leave whole releases or none."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import RegistryError
from pipeline.registry import resolve
from pipeline.registry.publish import publish
from pipeline.registry.store import DirectoryStore

ROOT = Path(__file__).parents[3]
DRIVER = Path(__file__).with_name("crashing_publisher.py")
NUM_STORMS = 8


def drive(*arguments):
    command = [sys.executable, str(DRIVER), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=100
    )
    return done.stdout.split()


def assert_whole(store, to):
    """Whatever is visible is sound, and can be pulled for every target."""
    assert resolve.verify(store) == []
    for release in resolve.releases(store):
        for target in release.targets:
            resolve.pull(
                store, release.name, target, release.version, to / f"{target}-{release.version}"
            )


def test_killed_at_every_touch_of_the_store(make_project, tmp_path):
    project = make_project()
    project.add("x86")
    (count,) = drive("step", project.root, tmp_path / "stores")
    visible = []
    for number in range(int(count)):
        store, to = DirectoryStore(tmp_path / f"stores/{number}"), tmp_path / f"pulled/{number}"
        to.mkdir(parents=True)
        visible.append(len(resolve.releases(store)))
        assert_whole(store, to)
        again = publish(project.root, store, None, project.releases)
        assert resolve.releases(store) == [again]
        assert resolve.verify(store) == []
    assert int(count) > 42, "seven files, each of which is opened, moved, removed and synced"
    assert visible == sorted(visible), "once visible, always visible"
    assert set(visible) == {0, 1}


def test_four_publishers_at_once_of_which_two_are_killed(make_project, tmp_path):
    projects = [make_project(f"project{number}") for number in range(4)]
    for number, project in enumerate(projects):
        for target in ("x86", "pi"):
            project.add(target, f"{number} {target}".encode() * 50_000)
    num_killed = 0
    for seed in range(NUM_STORMS):
        store, to = DirectoryStore(tmp_path / f"store{seed}"), tmp_path / f"pulled{seed}"
        to.mkdir()
        survivors = drive("storm", store.root, seed, *(project.root for project in projects))
        num_killed += 4 - len(survivors)
        assert_whole(store, to)
        found = {release.digest for release in resolve.releases(store)}
        expected = {
            publish(project.root, store, None, project.releases).digest
            for project in projects
            if str(project.root) in survivors
        }
        assert expected <= found, "what a publisher reported is there"
        assert len(resolve.releases(store)) == len(found)
    assert num_killed > NUM_STORMS // 2, "the moments of the kills miss the publishers"


def test_equal_content_published_at_once_is_one_release(tiny_project, directory_store):
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(publish, tiny_project.root, directory_store, None, tiny_project.releases)
            for _ in range(4)
        ]
    (release,) = resolve.releases(directory_store)
    assert [run.result() for run in runs] == 4 * [release]
    assert resolve.verify(directory_store) == []


def test_one_version_published_at_once_with_different_content_has_one_winner(
    make_project, directory_store
):
    projects = [make_project(f"project{number}") for number in range(4)]
    for number, project in enumerate(projects):
        project.add("x86", f"weights {number}".encode())
        project.commit()

    def attempt(project):
        try:
            return publish(project.root, directory_store, "1.0.0", project.releases)
        except RegistryError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(attempt, projects))
    refused = [result for result in results if isinstance(result, str)]
    (won,) = [result for result in results if not isinstance(result, str)]
    assert all("digits 1.0.0 is published with other content" in text for text in refused)
    assert resolve.releases(directory_store) == [won]
