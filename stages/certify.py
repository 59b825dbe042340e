"""Stage ``certify@T``: the one chosen artifact and the reference, once, on the test split."""

import sys

from pipeline.chain import certify

if __name__ == "__main__":
    certify.main(*sys.argv[1:])
