"""Engines, which open and run variants. Each engine is one class and one row of the table."""
