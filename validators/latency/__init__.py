"""Latency: variants timed side by side, ranked, and the recorded winners."""
