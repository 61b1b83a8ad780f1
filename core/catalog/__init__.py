"""The catalog: systems, what their authors published, and figures that others published. Data only."""
