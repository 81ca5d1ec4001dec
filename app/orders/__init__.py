"""Runs that go on without a client, and what all runs are made with."""
