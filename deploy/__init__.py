"""The embedded stack, settings and the command line."""
