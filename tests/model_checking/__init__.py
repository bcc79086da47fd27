"""Every interleaving of two threads with a pass, of the real code and of a model of it: issue 5, contract.md H5-H7, D1,
D4, D6.  ``python -m tests.model_checking`` is the whole of it.
"""
