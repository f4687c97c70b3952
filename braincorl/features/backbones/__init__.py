"""Networks and filters that turn pictures into features."""
