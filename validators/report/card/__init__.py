"""The model card: the README.md of an artifact, a pure function of its manifest and its reports."""
