"""Reports: the document, its log, the page and the model card."""
