"""The workflows, one file a command and named as it, and what several of them share."""
