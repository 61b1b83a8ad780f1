"""The content of each section of a report's page, made from the report alone."""
