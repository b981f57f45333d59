"""What answers. A backend knows neither channels nor sessions: a prompt comes in, deltas come out."""
