"""Random operations on a collection beside an oracle that is nothing but a dictionary.

`make random-operations` runs thousands of steps; every step is written to a trace before it is done, and

    python -m tests.random_operations --replay TRACE

does the same steps again, so that a failure can be looked at as often as needed.
"""
