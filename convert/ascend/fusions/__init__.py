"""Published passes by which CANN's graph compiler replaces nodes, and where they would fire."""
