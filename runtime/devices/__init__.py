"""Devices: where a variant runs, how to wait for it, and how it computes. One row of the table a kind."""
