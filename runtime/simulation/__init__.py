"""The simulated NPU: a torch device named npu, on CPU, that computes in the NPU's documented arithmetic."""
