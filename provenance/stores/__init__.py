"""Stores and transports on real servers: SQL, Redis Streams."""
