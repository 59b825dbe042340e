"""Stage ``train``: the teacher, trained here or taken from a checkpoint."""

from pipeline.chain import train

if __name__ == "__main__":
    train.main()
