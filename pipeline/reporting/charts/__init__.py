"""The report's charts: each function gives one inline SVG, drawn from plain data."""
