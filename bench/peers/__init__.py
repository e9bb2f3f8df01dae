"""What else could answer the benchmarks' questions, each over the same topic."""
