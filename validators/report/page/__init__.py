"""The page of a validation: one HTML file."""
