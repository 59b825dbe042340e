"""Stage ``toolchain``: which tools are installed, which machines measure. Never fails."""

from pipeline.chain import toolchain

if __name__ == "__main__":
    toolchain.main()
