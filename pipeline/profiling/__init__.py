"""Timing, statistics, agreement: numbers worth publishing."""
