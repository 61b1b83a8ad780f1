"""What ``coverage.py`` is made of: the draw of encoders, the exporters, and the table of their results."""

YES, NO, UNSUPPORTED = "yes", "no", "unsupported"
"""What became of an export: a right graph; none, or a wrong one; a model that the exporter does not take."""
NAMES = VCONV, TRANSFORMERS, TIMM, OPTIMUM = "vconv", "transformers.exporters", "timm", "optimum-cli"
"""The exporters, in the order of the tables."""
