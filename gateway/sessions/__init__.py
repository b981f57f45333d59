"""The memory of conversations. Pure: no input or output, no await, no clock of its own; time comes in as an argument."""
