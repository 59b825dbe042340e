"""A board by OpenSSH's own client: its configuration, agent and known hosts are the user's."""

import re
from pathlib import Path

from pipeline import params
from pipeline.transports.base import last_line
from pipeline.transports.shell import Shell, private_folder

LOST = 255  # ssh's own exit code: no connection, or it broke
CONNECT_LIMIT_S = 10
# How ssh's own lines begin; all others are the remote program's.
OWN = re.compile(
    r"ssh: |Host key verification failed\.|no such identity: |Warning: Identity file |"
    r"\S+: Permission denied \(|Connection (to|closed|reset|timed out)\b|client_loop: |"
    r"kex_exchange_identification: |Timeout, server |Received disconnect from |Bad owner or "
)
# Of what ssh says, what a user can do about it; the first that fits.
REMEDIES = (
    (
        "Host key verification failed",
        "its host key is not known, or not the known one; compare it there, mend known_hosts",
    ),
    ("Permission denied", "no key opens it; add yours with ssh-copy-id, or start ssh-agent"),
    ("Could not resolve hostname", "its name is not known; correct connection.host"),
    ("No such file or directory", "connection.identity names no file"),
    ("Connection refused", "nothing listens on its port; is sshd running there?"),
)


class Ssh(Shell):
    """One connection, shared by all commands of this process and its siblings (ControlMaster).

    ssh never asks: a key or an agent opens the board, its host key is known before, and nothing
    secret stands on a command line.
    """

    def __init__(self, connection: params.Ssh, connect_limit_s: int = CONNECT_LIMIT_S) -> None:
        """Describe the board; nothing is sent."""
        port = f":{connection.port}" if connection.port else ""
        super().__init__(
            f"{connection.host}{port}", connection.folder, connection.python, connection.runner
        )
        self.connection = connection
        self.connect_limit_s = connect_limit_s

    def line(self, script: str) -> list[str]:
        """Return ssh's command."""
        given = self.connection
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(self.connect_limit_s),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPersist": "20",
            "ControlPath": _quoted(private_folder(), "/%C"),
            "LogLevel": "ERROR",
        }
        if given.identity:
            options |= {"IdentityFile": _quoted(given.identity), "IdentitiesOnly": "yes"}
        if given.known_hosts:
            options["UserKnownHostsFile"] = _quoted(given.known_hosts)
        port = ["-p", str(given.port)] if given.port else []
        stated = [
            argument for key, value in options.items() for argument in ("-o", f"{key}={value}")
        ]
        return ["ssh", "-T", *stated, *port, given.host, script]

    def broken(self, returncode: int, noise: str) -> str | None:
        """Say why ssh gave up."""
        if returncode != LOST:
            return None
        own = [line for line in noise.splitlines() if OWN.match(line)]
        line = own[-1] if own else ""
        known = next((remedy for said, remedy in REMEDIES if said in line), None)
        if known is not None:
            return known
        lost = "the connection was lost"
        return f"{lost} ({last_line(line or noise)})" if noise.strip() else lost


def _quoted(path: str | Path, name: str = "") -> str:
    """Write a path as ssh's configuration takes it, the home's sign resolved; ``name`` is ssh's."""
    absolute = str(Path(path).expanduser().absolute())
    return '"' + absolute.replace("%", "%%") + name + '"'
