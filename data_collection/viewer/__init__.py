"""A tree store as one HTML page that needs no network."""
