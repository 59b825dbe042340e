"""Stage ``export``: every variant as ONNX, with proof that it computes what the net computes."""

from pipeline.chain import export

if __name__ == "__main__":
    export.main()
