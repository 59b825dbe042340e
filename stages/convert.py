"""Stage ``convert@T``: every variant in T's own format and precisions."""

import sys

from pipeline.chain import convert

if __name__ == "__main__":
    convert.main(*sys.argv[1:])
