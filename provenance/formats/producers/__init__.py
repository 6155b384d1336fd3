"""What a producer signs: run ids, certificates, statements, batches, and their answer."""
