"""ONNX graphs: traced from a model without weights, and changed by passes."""
