"""The comparison of evaluated models: one HTML page, and tables."""
