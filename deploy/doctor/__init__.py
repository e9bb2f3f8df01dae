"""What `kappa doctor` looks at, and what to do about each thing that is not well."""
