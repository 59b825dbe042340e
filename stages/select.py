"""Stage ``select@T``: the candidate that meets T's budget and is measured best."""

import sys

from pipeline.chain import select

if __name__ == "__main__":
    select.main(*sys.argv[1:])
