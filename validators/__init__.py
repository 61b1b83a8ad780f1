"""Judging variants: metrics, limits, checks and reports."""
