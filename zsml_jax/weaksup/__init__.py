"""Automated weak supervision."""
