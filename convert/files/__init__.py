"""Files that hold tensors: safetensors, pickles, and shards with their index."""
