"""What an encoder made of its context: attention, influence, layers."""
