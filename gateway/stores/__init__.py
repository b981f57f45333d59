"""Where turns, sessions and parked answers are kept. A store owns no clock; time comes in as an argument."""
