"""Child processes, and what is measured in one."""
