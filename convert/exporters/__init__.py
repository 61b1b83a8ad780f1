"""Exporters of others, which write ONNX graphs of a stock model: one file each, and a table."""
