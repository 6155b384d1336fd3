"""Approvals: persons' signatures that a deployment or a pipeline waits for."""
