"""Engines: what opens and runs a variant. One class and one row of the table each."""
