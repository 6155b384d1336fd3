"""Stores and transports: SQL, Redis Streams, and one inside a process."""
