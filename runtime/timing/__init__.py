"""Timing: clocks, the load of other processes during a measurement, and the confidence of a figure."""
