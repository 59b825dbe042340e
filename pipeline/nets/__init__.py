"""Network definitions, their factory and their files."""
