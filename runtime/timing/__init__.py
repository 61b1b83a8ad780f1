"""Timing: clocks, what else the machine did meanwhile, and how sure a figure is."""
