"""The simulated NPU: a torch device named npu, on CPU, that computes with the NPU's documented arithmetic."""
