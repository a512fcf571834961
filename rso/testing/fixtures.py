"""Pytest fixtures for plugin authors."""
