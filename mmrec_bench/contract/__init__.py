"""The contract of each plugin kind as checks: one implementation, for pytest and for users.

`mmrec_bench.testing` offers them as tests to inherit, `mmrec-bench check-plugin` runs them on what
is installed. A check raises `findings.BrokenContractError`, which says what was found, what was
expected and how to mend it.
"""
