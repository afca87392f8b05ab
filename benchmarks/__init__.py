"""Measurements, each run by one command."""
