"""Stage ``quantize``: how sensitive each layer is to int8; with ``qat`` a net also learns on it."""

from pipeline.chain import quantize

if __name__ == "__main__":
    quantize.main()
