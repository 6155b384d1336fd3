"""One run of the database: its records, what was signed of them, and its seals."""
