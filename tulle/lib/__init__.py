"""What any program might need; nothing here knows what a mesh is."""
