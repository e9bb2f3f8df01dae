"""What events look like and how their bytes are read."""
