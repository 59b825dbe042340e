"""Stage ``distill``: smaller nets learn back from the teacher, if that beats plain fine-tuning."""

from pipeline.chain import distill

if __name__ == "__main__":
    distill.main()
