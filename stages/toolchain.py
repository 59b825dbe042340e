"""Stage ``toolchain``: which tools are installed, which machine this is. Never fails."""

from pipeline.chain import toolchain

if __name__ == "__main__":
    toolchain.main()
