"""What is published as a repository on a platform: the page, scripts, logs and results."""
