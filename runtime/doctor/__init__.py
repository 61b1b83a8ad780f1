"""What is installed here, what of it works, and how to repair what does not."""
