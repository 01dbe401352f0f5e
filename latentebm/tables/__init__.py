"""Tables of mixed types: a generator of rows, and weights on its rows that give targets their shares.

`TableDebiaser` is the estimator; `Share`, `Parity`, `Mean` and `equal_opportunity` say what the shares shall be.
"""
