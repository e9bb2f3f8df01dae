"""Nexmark's queries as this project declares them, over the same way from Kafka to view topic."""
