"""The page of a validation: one file of HTML."""
