"""What each section of a report's page shows, laid out from the report alone."""
