"""From a source's tensors to an artifact's weights file, with a line in the ledger for each."""
