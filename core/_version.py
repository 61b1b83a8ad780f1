"""The version, in a separate module, so that packaging reads it without importing other modules."""

VERSION = "0.2.0"
