"""Stage ``prepare``: the data source to fixed, digested splits."""

from pipeline.chain import prepare

if __name__ == "__main__":
    prepare.main()
