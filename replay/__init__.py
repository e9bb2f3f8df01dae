"""Rebuild, verify, promote and roll back views."""
