"""Hold each target against what the catalogue knows of its hardware, before anything runs.

A line names the fact that it rests on and of what kind that is: ``general_knowledge`` may be wrong,
and ``hardware: FILE.yaml`` puts a fact right. What the catalogue does not know is no problem.
"""
