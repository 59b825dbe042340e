"""Stage ``profile@T``: one measurement a candidate, on T, on validation data."""

import sys

from pipeline.chain import profile

if __name__ == "__main__":
    profile.main(*sys.argv[1:])
