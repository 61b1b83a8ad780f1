"""What is installed on this machine, whether it works, and how to fix what does not."""
