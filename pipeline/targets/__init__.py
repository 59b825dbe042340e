"""What a target's machine is and which tools it has."""
