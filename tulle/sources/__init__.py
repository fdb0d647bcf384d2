"""Where knowledge of the world comes from."""
