"""Where and why a variant departs from its reference."""
