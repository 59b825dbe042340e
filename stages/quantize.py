"""Stage ``quantize``: how sensitive each layer is to int8, and the range of what flows into it."""

from pipeline.chain import quantize

if __name__ == "__main__":
    quantize.main()
