"""The workflows: one file per command, with the command's name, and the code that several workflows share."""
