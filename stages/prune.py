"""Stage ``prune``: one smaller net for each recipe that prunes."""

from pipeline.chain import prune

if __name__ == "__main__":
    prune.main()
