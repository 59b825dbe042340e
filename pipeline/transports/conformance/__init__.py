"""Hold any runner against docs/runner-protocol.md: a closed table of cases, each a request to it.

Three tiny models whose numbers are known (``tiny/``, written by scripts/tiny_models.py) serve the
runtimes that load their formats; for others, or instead of these, a model and data of the user's:
of those only form and repetition can be checked.
"""
