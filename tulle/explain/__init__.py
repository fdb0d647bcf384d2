"""What the mesh would do with a request, and why: the compiled state, asked through the proxy's own engine."""
