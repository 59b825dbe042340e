"""Which stage's output made which, traced by the digests in the manifests alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files, manifest
from pipeline.manifest import Manifest


@dataclass(frozen=True)
class Node:
    """What one stage wrote, for all targets or for one."""

    stage: str
    target: str | None
    digest: str

    @property
    def name(self) -> str:
        """As dvc.yaml names it."""
        return self.stage if self.target is None else f"{self.stage}@{self.target}"


@dataclass(frozen=True)
class Link:
    """An input of a node: by role, from another node, or from outside (``source`` None).

    ``part`` is the file of the source that was read, None if it is the whole of it.
    """

    role: str
    digest: str
    source: Node | None
    part: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Every node with its inputs, sources before what is made of them."""

    inputs: dict[Node, tuple[Link, ...]] = field(default_factory=dict)

    def sources(self, node: Node) -> set[Node]:
        """Give what the node was made from directly."""
        return {link.source for link in self.inputs[node] if link.source is not None}

    def direct(self, node: Node) -> tuple[Node, ...]:
        """Give the sources that no other source was made from: the edges worth drawing."""
        sources = self.sources(node)
        further = set().union(*(self.ancestors(source) for source in sources))
        return tuple(n for n in self.inputs if n in sources - further)

    def ancestors(self, node: Node) -> set[Node]:
        """Give all that the node was made from, at any distance."""
        found: set[Node] = set()
        waiting = [node]
        while waiting:
            new = self.sources(waiting.pop()) - found
            found |= new
            waiting.extend(new)
        return found


def trace(directories: Sequence[Path]) -> Lineage:
    """Link the manifests of these folders, each what a whole stage wrote.

    A folder without a manifest was not made, and one of a single variant is part of another: both
    are left out.
    A manifest names its inputs by role and digest: of another folder's manifest, or of one file
    there. A digest that no folder here has came from outside, or was replaced since.
    """
    read = {}
    for path in directories:
        if (path / manifest.FILE_NAME).is_file() and (m := manifest.read(path)).variant is None:
            digest = files.digest_file(path / manifest.FILE_NAME)
            read[Node(m.stage, m.target, digest)] = m
    whole = {node.digest: node for node in read}
    part: dict[str, tuple[Node, str]] = {}
    for node, m in read.items():
        for name, file in m.files.items():
            part.setdefault(file.digest, (node, name))
    links = {node: tuple(_links(m, whole, part)) for node, m in read.items()}
    return Lineage(_ordered(links))


def _links(m: Manifest, whole: dict[str, Node], part: dict[str, tuple[Node, str]]) -> list[Link]:
    links = []
    for found in m.inputs:
        source, name = whole.get(found.digest), None
        if source is None and found.digest in part:
            source, name = part[found.digest]
        links.append(Link(found.path, found.digest, source, name))
    return links


def _ordered(links: dict[Node, tuple[Link, ...]]) -> dict[Node, tuple[Link, ...]]:
    """Put each node after its sources, else in the order given; digests admit no cycle."""
    done: dict[Node, tuple[Link, ...]] = {}

    def visit(node: Node) -> None:
        if node in done:
            return
        for link in links[node]:
            if link.source is not None:
                visit(link.source)
        done[node] = links[node]

    for node in links:
        visit(node)
    return done
