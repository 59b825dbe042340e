"""Stage ``register@T``: T's part of the release, by digest. Pure: adds nothing of its own."""

import sys

from pipeline.chain import register

if __name__ == "__main__":
    register.main(*sys.argv[1:])
