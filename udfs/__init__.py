"""Plain functions that jobs run on events."""
