"""Streams to views, one module a job."""
