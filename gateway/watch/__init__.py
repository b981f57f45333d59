"""What the operator can see from outside: logs, health, metrics. Never a message text, never a secret."""
